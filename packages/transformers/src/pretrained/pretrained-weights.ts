import type { DType, Tensor, WeightSource } from '@deepspeed-ts/core';
import type { StoredTensor } from './stored-weights.js';

/** Weights in files, by the parameter that each is for. */
export class PretrainedWeights implements WeightSource {
  constructor(private readonly tensors: ReadonlyMap<string, StoredTensor>) {}

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  dtypeOf(name: string): DType {
    return this.tensors.get(name)!.dtype;
  }

  read(name: string, start: number, target: Tensor): Promise<void> {
    const { file, name: stored } = this.tensors.get(name)!;
    return file.read(stored, start, target);
  }

  close(): void {
    for (const { file } of this.tensors.values()) file.close();
  }
}
