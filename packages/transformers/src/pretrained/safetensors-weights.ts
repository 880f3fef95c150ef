import { dtypeOfSafetensors, SafetensorsFile, type Tensor, write } from '@deepspeed-ts/core';
import { PretrainedError } from './errors.js';
import type { StoredTensor, WeightFile } from './stored-weights.js';

/** A safetensors file of weights. */
export class SafetensorsWeights implements WeightFile {
  readonly tensors: readonly StoredTensor[];
  #file: SafetensorsFile | undefined;

  /** @throws DeepSpeedError where it is truncated or no such file; PretrainedError where it holds tensors that no device does */
  constructor(readonly path: string) {
    using file = new SafetensorsFile(path);
    this.tensors = [...file.entries].map(([name, { dtype: stored, shape }]) => {
      // No device holds f64: its values become f32.
      const dtype = stored === 'F64' ? 'f32' : dtypeOfSafetensors(stored);
      if (!dtype) throw new PretrainedError('ERR_PRETRAINED_FILE', path, `tensor '${name}' has dtype ${stored}, which is not supported`);
      return { name, dtype, shape, file: this };
    });
  }

  async read(name: string, start: number, target: Tensor): Promise<void> {
    this.#file ??= new SafetensorsFile(this.path);
    if (this.#file.entries.get(name)?.dtype === 'F64') write(target, this.#file.slice(name, start, target.numel));
    else await this.#file.readInto(name, start, target);
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }
}
