import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * A thread that runs a module of this package, named by its path from here without the ending: in a published package that is a file of
 * dist that tsup.config.ts lists as an entry, from source it is TypeScript, which Node needs help with.
 */
export function startWorker(module: string, options: WorkerOptions = {}): Worker {
  if (!import.meta.url.endsWith('.ts')) return new Worker(new URL(`./${module}.js`, import.meta.url), options);
  const entry = new URL(`./${module}.ts`, import.meta.url);
  return new Worker(new URL('./worker-from-source.mjs', import.meta.url), { ...options, argv: [entry.href] });
}
