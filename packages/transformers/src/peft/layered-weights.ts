import type { DType, Tensor, WeightSource } from '@deepspeed-ts/core';
import { PretrainedWeights } from '../pretrained/pretrained-weights.js';
import type { StoredTensor } from '../pretrained/stored-weights.js';

/** Weights of some parameters from files, and of all others from another source. */
export class LayeredWeights implements WeightSource {
  readonly #own: PretrainedWeights;

  constructor(
    own: ReadonlyMap<string, StoredTensor>,
    private readonly below: WeightSource | undefined,
  ) {
    this.#own = new PretrainedWeights(own);
  }

  has(name: string): boolean {
    return this.#own.has(name) || (this.below?.has(name) ?? false);
  }

  dtypeOf(name: string): DType {
    return this.#of(name).dtypeOf(name);
  }

  read(name: string, start: number, target: Tensor): Promise<void> {
    return this.#of(name).read(name, start, target);
  }

  close(): void {
    this.#own.close();
    this.below?.close();
  }

  #of(name: string): WeightSource {
    return this.#own.has(name) ? this.#own : this.below!;
  }
}
