import { DeepSpeedError } from '../errors.js';
import type { Backend } from './backend.js';
import { ReferenceBackend } from './reference-backend.js';

export type BackendFactory = () => Backend;

interface Entry {
  readonly factory: BackendFactory;
  readonly priority: number;
}

/** The one module-level registry of the library: backend packages add themselves when they are imported. */
const registry = new Map<string, Entry>([['reference', { factory: () => new ReferenceBackend(), priority: -1 }]]);

export function registerBackend(name: string, factory: BackendFactory, options: { priority?: number } = {}): void {
  registry.set(name, { factory, priority: options.priority ?? 0 });
}

/** Opens a backend by name, or the registered one of the highest priority. */
export function openBackend(name?: string): Backend {
  const known = [...registry].sort(([, a], [, b]) => b.priority - a.priority);
  const entry = name === undefined ? known[0]?.[1] : registry.get(name);
  if (!entry) {
    const names = known.map(([key]) => key).join(', ');
    throw new DeepSpeedError(
      'ERR_UNKNOWN_BACKEND',
      `no backend named '${name}'; registered: ${names}. Import its package first (for 'cpu': @deepspeed-ts/kernels-cpu)`,
    );
  }
  return entry.factory();
}
