import type { Worker } from 'node:worker_threads';
import { startWorker } from '../worker-entry.js';
import { DatasetError } from './errors.js';
import type { LineIndex } from './line-file.js';
import type { EncodedChunk } from './token-store.js';

/** What a thread opens: the file, and the tokenizer's directory. */
export interface TokenizeStart {
  readonly path: string;
  readonly lines: LineIndex | undefined;
  readonly directory: string;
  readonly completionOnly: boolean;
}

export interface TokenizeRequest {
  readonly id: number;
  readonly from: number;
  readonly to: number;
}

export type TokenizeReply = { readonly id: number; readonly chunk: EncodedChunk } | { readonly id: number; readonly error: string };

interface Waiting {
  readonly worker: number;
  resolve(chunk: EncodedChunk): void;
  reject(error: Error): void;
}

/** Threads that read and encode records of a file. */
export class TokenizeThreads {
  readonly #workers: readonly Worker[];
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;

  constructor(count: number, start: TokenizeStart) {
    this.#workers = Array.from({ length: count }, (_, worker) => {
      const thread = startWorker('data/tokenize-worker', { workerData: start, name: 'tokenize' });
      thread.on('message', (reply: TokenizeReply) => this.#hear(reply));
      thread.on('error', (error: Error) => this.#fail(worker, `a thread that encodes text has failed: ${error.message}`, error));
      thread.on('exit', (code) => this.#fail(worker, `a thread that encodes text has ended, with code ${code}`));
      return thread;
    });
  }

  /** Records from `from` to `to`, by the thread with least to do. @throws DatasetError naming the record that can't be encoded */
  encode(from: number, to: number): Promise<EncodedChunk> {
    const loads = this.#workers.map((_, worker) => [...this.#waiting.values()].filter((waiting) => waiting.worker === worker).length);
    const worker = loads.indexOf(Math.min(...loads));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { worker, resolve, reject });
      this.#workers[worker]!.postMessage({ id, from, to } satisfies TokenizeRequest);
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((thread) => thread.terminate()));
  }

  #hear(reply: TokenizeReply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if ('error' in reply) waiting?.reject(new DatasetError(reply.error));
    else waiting?.resolve(reply.chunk);
  }

  #fail(worker: number, message: string, cause?: Error): void {
    for (const [id, waiting] of this.#waiting) {
      if (waiting.worker !== worker) continue;
      this.#waiting.delete(id);
      waiting.reject(new DatasetError(message, { cause }));
    }
  }
}
