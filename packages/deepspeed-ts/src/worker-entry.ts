import type { Worker, WorkerOptions } from 'node:worker_threads';
import { startModule } from '@deepspeed-ts/core';

/** A thread that runs a module of this package, named by its path from here without the ending. */
export function startWorker(module: string, options: WorkerOptions = {}): Worker {
  return startModule(import.meta.url, module, options);
}

/** Where such a module is, for a thread to import. */
export function moduleUrl(module: string): URL {
  return new URL(`./${module}.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url);
}
