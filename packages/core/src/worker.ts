import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * A thread that runs a module of the caller's package: in a published package that is a file of its dist, from source it is TypeScript, which
 * Node needs help with.
 *
 * @param base - `import.meta.url` of the caller, which lies at the root of its sources, as its bundle lies at the root of dist.
 * @param module - Path from there, without the ending; `tsup.config.ts` lists it as an entry.
 */
export function startModule(base: string, module: string, options: WorkerOptions = {}): Worker {
  if (!base.endsWith('.ts')) return new Worker(new URL(`./${module}.js`, base), options);
  const entry = new URL(`./${module}.ts`, base);
  return new Worker(new URL('./worker-from-source.mjs', import.meta.url), { ...options, argv: [entry.href] });
}
