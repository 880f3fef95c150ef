import { add, type Communicator, type Device, noGrad, scope, type Tensor, tensor } from '@deepspeed-ts/core';

/**
 * Adds up losses on the device, so that a step waits for none: what was added is read when somebody wants to know. Values are f32 []; every
 * rank adds its own, and all ranks read together.
 */
export class LossSum {
  #sum: Tensor | undefined;

  constructor(
    private readonly device: Device,
    private readonly communicator: Communicator,
  ) {}

  /** @param value - f32 []; stays the caller's */
  add(value: Tensor): void {
    const before = this.#sum;
    this.#sum = noGrad(() => scope(() => (before ? add(before, value) : scope(() => copyOf(value))))).keep();
    before?.dispose();
  }

  /** The mean over ranks of what they have added since the last call. Every rank calls it. */
  async take(): Promise<number> {
    const sum = this.#sum ?? tensor(this.device, [0], 'f32', []).keep();
    this.#sum = undefined;
    try {
      if (this.communicator.size > 1) this.communicator.allReduce(sum, 'mean', 'loss').wait();
      return await sum.item();
    } finally {
      sum.dispose();
    }
  }

  /** Goes on from a sum that was taken, the same on all ranks. */
  put(value: number): void {
    this.dispose();
    this.#sum = tensor(this.device, [value], 'f32', []).keep();
  }

  dispose(): void {
    this.#sum?.dispose();
    this.#sum = undefined;
  }
}

/** Storage of its own: collectives write into it. */
function copyOf(value: Tensor): Tensor {
  return add(value, tensor(value.device, [0], 'f32', []));
}
