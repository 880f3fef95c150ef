import type { Tensor, Work } from '@deepspeed-ts/core';
import type { Call } from './call.js';

/** What a work needs of its communicator. */
export interface WorkOwner {
  order(work: CudaWork): void;
}

/**
 * A collective on the group's stream. It holds its tensors' memory until the compute stream is ordered behind it, or until it has
 * ended. It has ended well once the device is through it and all ranks are known to have made the same call.
 */
export class CudaWork implements Work {
  readonly startedAt = Date.now();
  /** The device is through it. */
  ranHere = false;
  waited = false;
  #state: 'pending' | 'done' | 'failed' = 'pending';
  #error: unknown;
  #buffers: Tensor['buffer'][];
  #ended: Promise<void> | undefined;
  #settle: { resolve(): void; reject(error: unknown): void } | undefined;

  /** `sequence`: the number of the collective; negative for a send or receive, which two ranks settle alone. */
  constructor(
    readonly owner: WorkOwner,
    readonly id: number,
    readonly call: Call,
    public sequence: number,
    tensors: readonly Tensor[],
  ) {
    this.#buffers = tensors.map(({ buffer }) => buffer.retain());
  }

  get pending(): boolean {
    return this.#state === 'pending';
  }

  wait(): void {
    this.waited = true;
    if (this.#state !== 'done') this.owner.order(this);
    // What reuses this memory from now on is queued behind the collective.
    this.release();
  }

  finished(): Promise<void> {
    if (!this.#ended) {
      if (this.#state === 'done') this.#ended = Promise.resolve();
      else if (this.#state === 'failed') this.#ended = Promise.reject(this.#error);
      else this.#ended = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
      this.#ended.catch(() => {}); // whoever awaits it sees the error
    }
    return this.#ended;
  }

  succeed(): void {
    this.#state = 'done';
    this.release();
    this.#settle?.resolve();
  }

  fail(error: unknown): void {
    this.#state = 'failed';
    this.#error = error;
    this.#settle?.reject(error);
  }

  /** Its memory is not used by the collective any more, or protected by the compute stream's order. */
  release(): void {
    for (const buffer of this.#buffers) buffer.release();
    this.#buffers = [];
  }
}
