import { type DType, dtypes, openTorchFile, type Tensor, type TorchDType, type TorchFile, TorchTensor, write } from '@deepspeed-ts/core';
import { PretrainedError } from './errors.js';
import type { StoredTensor, WeightFile } from './stored-weights.js';

/** A file of weights that `torch.save` wrote: `pytorch_model.bin`. Nothing in it is executed. */
export class TorchWeights implements WeightFile {
  readonly tensors: readonly StoredTensor[];
  #file: { readonly open: TorchFile; readonly tensors: ReadonlyMap<string, TorchTensor> } | undefined;

  /** @throws TorchFileError, PickleError where it is damaged; PretrainedError where it holds something else than weights */
  constructor(readonly path: string) {
    this.tensors = [...this.#opened()].map(([name, { dtype: stored, shape }]) => {
      const dtype = dtypeOf(stored);
      if (!dtype) throw new PretrainedError('ERR_PRETRAINED_FILE', path, `tensor '${name}' has dtype ${stored}, which is not supported`);
      return { name, dtype, shape, file: this };
    });
    this.close();
  }

  async read(name: string, start: number, target: Tensor): Promise<void> {
    const tensor = this.#opened().get(name)!;
    const { device, handle, byteOffset, numel } = target;
    if (tensor.dtype === target.dtype) device.backend.write(handle, byteOffset, tensor.bytes(start, numel));
    else write(target, { ...tensor.values(start, numel), shape: target.shape });
  }

  close(): void {
    this.#file?.open.close();
    this.#file = undefined;
  }

  #opened(): ReadonlyMap<string, TorchTensor> {
    if (!this.#file) {
      const open = openTorchFile(this.path);
      try {
        this.#file = { open, tensors: tensorsOf(open) };
      } catch (error) {
        open.close();
        throw error;
      }
    }
    return this.#file.tensors;
  }
}

/** What a device holds such values in; f64, which none does, becomes f32. */
function dtypeOf(stored: TorchDType): DType | undefined {
  return stored === 'f64' ? 'f32' : stored in dtypes ? (stored as DType) : undefined;
}

function tensorsOf({ root, path }: TorchFile): Map<string, TorchTensor> {
  if (!(root instanceof Map)) throw new PretrainedError('ERR_PRETRAINED_FILE', path, 'expected a dictionary of weights by name');
  const tensors = new Map<string, TorchTensor>();
  for (const [name, value] of root) if (typeof name === 'string' && value instanceof TorchTensor) tensors.set(name, value);
  return tensors;
}
