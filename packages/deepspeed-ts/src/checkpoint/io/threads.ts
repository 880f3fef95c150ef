import { availableParallelism } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { startWorker } from '../../worker-entry.js';
import { type Job, perform } from './job.js';

export interface Numbered<T> {
  readonly id: number;
  readonly job: T;
}

/** What a thread says of a job: the sha-256, or the system's error. */
export type Answer =
  | { readonly id: number; readonly digest: string }
  | { readonly id: number; readonly error: { code: string; message: string } };

/** Does jobs, a few at a time. Whoever has it closes it. */
export interface Io {
  /** Pieces of a write are no longer the caller's. @returns the sha-256 @throws the system's error, with its code */
  run(job: Job): Promise<string>;
  /** Jobs that are not done yet never will be. */
  close(): Promise<void>;
}

/** Less than this is not worth threads: starting one takes some tens of milliseconds. */
const FEW_BYTES = 2 * 2 ** 20;
/** A disk gains nothing from more at a time. */
const MOST_THREADS = 4;

/** What moves so many bytes. */
export function openIo(bytes: number): Io {
  return bytes <= FEW_BYTES ? inline : new IoThreads(threadCount());
}

/** Direct writes pad, and pay off only where there is something to write. */
export function worthDirect(bytes: number): boolean {
  return bytes > FEW_BYTES;
}

/** Ranks of one host share its cores. One thread hashes while another waits for the disk. */
function threadCount(): number {
  const ranks = Number(process.env.LOCAL_WORLD_SIZE) || 1;
  return Math.min(MOST_THREADS, Math.max(2, Math.floor(availableParallelism() / ranks)));
}

const inline: Io = {
  async run(job) {
    await setImmediate();
    return perform(job);
  },
  async close() {},
};

interface Pending {
  readonly bytes: number;
  readonly resolve: (digest: string) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly pending: Map<number, Pending>;
}

/** Threads that get their jobs at once, so that they never wait for the thread that trains. */
class IoThreads implements Io {
  readonly #threads: readonly Thread[];
  #next = 0;
  #closed = false;

  constructor(count: number) {
    this.#threads = Array.from({ length: count }, () => this.#start());
  }

  run(job: Job): Promise<string> {
    if (this.#closed) return Promise.reject(new Error('the threads have been closed'));
    const id = this.#next++;
    const load = ({ pending }: Thread) => [...pending.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    const loads = this.#threads.map(load);
    const { worker, pending } = this.#threads[loads.indexOf(Math.min(...loads))]!;
    return new Promise((resolve, reject) => {
      pending.set(id, { bytes: bytesOfJob(job), resolve, reject });
      worker.postMessage({ id, job } satisfies Numbered<Job>, buffersOf(job));
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }

  #start(): Thread {
    const worker = startWorker('checkpoint/io-worker', { execArgv: [], name: 'checkpoint' });
    const pending = new Map<number, Pending>();
    const fail = (error: Error) => {
      for (const { reject } of pending.values()) reject(error);
      pending.clear();
    };
    worker.on('message', (answer: Answer) => {
      const job = pending.get(answer.id);
      pending.delete(answer.id);
      if ('digest' in answer) job?.resolve(answer.digest);
      else job?.reject(Object.assign(new Error(answer.error.message), { code: answer.error.code }));
    });
    worker.on('error', fail);
    worker.on('exit', () => fail(new Error('the thread that does file work has ended')));
    return { worker, pending };
  }
}

function bytesOfJob(job: Job): number {
  return job.kind === 'hash' ? job.length : job.pieces.reduce((sum, { length }) => sum + length, 0);
}

/** What can be handed over without a copy. */
function buffersOf(job: Job): ArrayBuffer[] {
  if (job.kind === 'hash') return [];
  const whole = job.pieces.filter(({ buffer, byteLength }) => buffer instanceof ArrayBuffer && buffer.byteLength === byteLength);
  return [...new Set(whole.map(({ buffer }) => buffer as ArrayBuffer))];
}
