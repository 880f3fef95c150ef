import { availableParallelism } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { startWorker } from '../../worker-entry.js';
import { type Job, perform } from './job.js';

export interface Numbered<T> {
  readonly id: number;
  readonly job: T;
}

/** What a thread says of a job: the checksum, or the system's error. */
export type Answer =
  | { readonly id: number; readonly digest: string }
  | { readonly id: number; readonly error: { readonly code: string; readonly message: string } };

/** Does jobs. Pieces of a write are no longer the caller's. @returns the checksum @throws the system's error, with its code */
export type RunJob = (job: Job) => Promise<string>;

/** Less than this is not worth threads: starting one takes some tens of milliseconds. */
const FEW_BYTES = 2 * 2 ** 20;
/** A disk gains nothing from more at a time. */
const MOST_THREADS = 4;

/** Direct writes pad, and pay off only where there is something to write. */
export function worthDirect(bytes: number): boolean {
  return bytes > FEW_BYTES;
}

interface Pending {
  readonly bytes: number;
  readonly resolve: (digest: string) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly pending: Map<number, Pending>;
}

/**
 * Threads for the file work of one engine. They are started when there is first something for them, get their jobs at once, so that
 * they never wait for the thread that trains, and do not keep the process alive while they are idle.
 */
export class FileThreads {
  #threads: readonly Thread[] = [];
  #next = 0;

  /** What does jobs of so many bytes altogether: for few of them the calling thread, between other things that it does. */
  runnerFor(bytes: number): RunJob {
    return bytes <= FEW_BYTES ? runHere : (job) => this.#run(job);
  }

  /** Ends the threads; jobs that are not done yet never will be. New jobs start new ones. */
  async close(): Promise<void> {
    const threads = this.#threads;
    this.#threads = [];
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
  }

  #run(job: Job): Promise<string> {
    if (this.#threads.length === 0) this.#threads = Array.from({ length: threadCount() }, start);
    const { worker, pending } = leastLoaded(this.#threads);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      pending.set(id, { bytes: bytesOfJob(job), resolve, reject });
      worker.ref();
      worker.postMessage({ id, job } satisfies Numbered<Job>, buffersOf(job));
    });
  }
}

async function runHere(job: Job): Promise<string> {
  await setImmediate();
  return perform(job);
}

/** Ranks of one host share its cores. One thread computes while another waits for the disk. */
function threadCount(): number {
  const ranks = Number(process.env.LOCAL_WORLD_SIZE) || 1;
  return Math.min(MOST_THREADS, Math.max(2, Math.floor(availableParallelism() / ranks)));
}

function start(): Thread {
  const worker = startWorker('checkpoint/io-worker', { execArgv: [], name: 'checkpoint' });
  const pending = new Map<number, Pending>();
  const fail = (error: Error) => {
    for (const { reject } of pending.values()) reject(error);
    pending.clear();
  };
  worker.on('message', (answer: Answer) => {
    const job = pending.get(answer.id);
    pending.delete(answer.id);
    if (pending.size === 0) worker.unref();
    if ('digest' in answer) job?.resolve(answer.digest);
    else job?.reject(Object.assign(new Error(answer.error.message), { code: answer.error.code }));
  });
  worker.on('error', fail);
  worker.on('exit', () => fail(new Error('the thread that does file work has ended')));
  return { worker, pending };
}

function leastLoaded(threads: readonly Thread[]): Thread {
  const loads = threads.map(({ pending }) => [...pending.values()].reduce((sum, { bytes }) => sum + bytes, 0));
  return threads[loads.indexOf(Math.min(...loads))]!;
}

function bytesOfJob(job: Job): number {
  return job.kind === 'check' ? job.length : job.pieces.reduce((sum, { length }) => sum + length, 0);
}

/** What can be handed over without a copy. */
function buffersOf(job: Job): ArrayBuffer[] {
  if (job.kind === 'check') return [];
  const whole = job.pieces.filter(({ buffer, byteLength }) => buffer instanceof ArrayBuffer && buffer.byteLength === byteLength);
  return [...new Set(whole.map(({ buffer }) => buffer as ArrayBuffer))];
}
