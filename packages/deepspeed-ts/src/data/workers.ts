import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import type { ThreadedDataset } from '@deepspeed-ts/core';
import { startWorker } from '../worker-entry.js';
import { DataError } from './data-error.js';
import type { WorkerError, WorkerReply, WorkerRequest, WorkerStart } from './worker-protocol.js';

export interface WorkerDatasetOptions {
  /** Threads that load batches side by side. Default 1. */
  readonly workers?: number;
  /** What the module's function gets; anything that can be sent to a thread. */
  readonly args?: unknown;
  /** How many samples there are, where you know: a Trainer plans its epochs by it. */
  readonly samples?: number;
}

/**
 * A dataset that lives in threads of its own, so that reading, tokenising and collating never hold up training. The module's default export is
 * a dataset, `{ length, get(index) }`, or a function of `args` that gives one; `get` may be asynchronous. An export named `collate` replaces
 * the stacking of samples. Batches travel as arrays with shapes, so what `collate` gives must be made of these.
 *
 * @example
 * const trainingData = new WorkerDataset(new URL('./my-data.js', import.meta.url), { workers: 2, args: { path: 'book.txt' } });
 */
export class WorkerDataset implements ThreadedDataset {
  readonly module: string;
  readonly workers: number;
  readonly args: unknown;
  readonly samples: number | undefined;

  constructor(module: URL, { workers = 1, args, samples }: WorkerDatasetOptions = {}) {
    if (!Number.isInteger(workers) || workers < 1) throw new DataError(`workers: expected an integer >= 1, got ${workers}`);
    this.module = module.href;
    this.workers = workers;
    this.args = args;
    this.samples = samples;
  }
}

interface Waiting {
  readonly resolve: (batch: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** The threads of a {@link WorkerDataset}. They don't keep the process alive while nobody waits for them. */
export class DataWorkers {
  readonly #threads: readonly Thread[];
  /** Samples of the dataset. */
  readonly length: number;

  private constructor(threads: readonly Thread[], length: number) {
    this.#threads = threads;
    this.length = length;
  }

  /** @throws DataError when the module can't be loaded or has no dataset */
  static async open({ module, workers, args, samples }: ThreadedDataset): Promise<DataWorkers> {
    const threads = Array.from({ length: workers }, () => new Thread({ module, args }));
    try {
      const lengths = await Promise.all(threads.map(({ ready }) => ready));
      const other = lengths.find((length) => length !== lengths[0]);
      if (other !== undefined) {
        throw new DataError(`${module}: expected the same data in every thread, got ${lengths[0]} samples in one and ${other} in another`);
      }
      if (samples !== undefined && samples !== lengths[0])
        throw new DataError(`${module}: expected ${samples} samples, as was said, got ${lengths[0]}`);
      return new DataWorkers(threads, lengths[0]!);
    } catch (error) {
      for (const { ready } of threads) ready.catch(() => {});
      await Promise.all(threads.map((thread) => thread.end()));
      throw error;
    }
  }

  /** A batch of these samples. @throws DataError naming the sample that could not be had */
  produce(items: readonly number[]): Promise<unknown> {
    const [thread] = [...this.#threads].sort((a, b) => a.load - b.load);
    return thread!.produce(items);
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.end()));
  }
}

class Thread {
  /** The length of its dataset. */
  readonly ready: Promise<number>;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;

  constructor(start: WorkerStart) {
    this.#worker = startWorker('data/data-worker', { workerData: start, name: 'data' });
    this.ready = this.#open();
    this.#worker.on('message', (reply: WorkerReply) => this.#hear(reply));
    this.#worker.on('error', (error: Error) =>
      this.#fail(new DataError(`a thread that loads data has failed: ${error.message}`, { cause: error })),
    );
    this.#worker.on('exit', (code) => this.#fail(new DataError(`a thread that loads data has ended, with code ${code}`)));
  }

  /** Batches that are asked of it. */
  get load(): number {
    return this.#waiting.size;
  }

  produce(items: readonly number[]): Promise<unknown> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ id, items } satisfies WorkerRequest);
    });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  async #open(): Promise<number> {
    const [reply] = (await Promise.race([
      once(this.#worker, 'message'),
      once(this.#worker, 'exit').then(([code]) => {
        throw new DataError(`a thread that loads data has ended before it began, with code ${code}`);
      }),
    ])) as [WorkerReply];
    if ('failed' in reply) throw errorOf(reply.failed);
    this.#worker.unref();
    return (reply as { length: number }).length;
  }

  #hear(reply: WorkerReply): void {
    if (!('id' in reply)) return;
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (this.#waiting.size === 0) this.#worker.unref();
    if ('error' in reply) waiting?.reject(errorOf(reply.error));
    else waiting?.resolve(reply.batch);
  }

  #fail(error: DataError): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** As it was in its thread, its place there included. */
function errorOf({ message, stack, index }: WorkerError): DataError {
  const cause = Object.assign(new Error(message), stack === undefined ? {} : { stack });
  return new DataError(message, { index, cause });
}
