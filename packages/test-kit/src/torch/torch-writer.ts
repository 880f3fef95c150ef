import { call, type Py, PyGlobal, PyPersistent, pickle, tuple } from './pickle-writer.js';
import { type ZipOptions, zip } from './zip-writer.js';

/** Bytes that tensors share, as a class of PyTorch's. */
export class Storage {
  /** @param type - Such as `FloatStorage`. */
  constructor(
    readonly type: string,
    readonly width: number,
    readonly bytes: Uint8Array,
  ) {}
}

export const floats = (values: ArrayLike<number>): Storage =>
  new Storage('FloatStorage', 4, new Uint8Array(Float32Array.from(values).buffer));

export interface TensorOptions {
  readonly shape?: readonly number[];
  readonly strides?: readonly number[];
  readonly offset?: number;
}

/** Collects storages, and makes the files that `torch.save` would. */
export class TorchWriter {
  readonly #keys = new Map<Storage, string>();

  /** A tensor, by default all of its storage along one axis. */
  tensor(storage: Storage, { shape, strides, offset = 0 }: TensorOptions = {}): Py {
    const numel = storage.bytes.length / storage.width;
    const sizes = shape ?? [numel];
    const steps = strides ?? contiguous(sizes);
    return call('torch._utils', '_rebuild_tensor_v2', [
      this.storage(storage),
      offset,
      tuple(...sizes),
      tuple(...steps),
      false,
      call('collections', 'OrderedDict'),
    ]);
  }

  storage(storage: Storage): Py {
    const known = this.#keys.get(storage);
    const key = known ?? String(this.#keys.size);
    this.#keys.set(storage, key);
    const module = storage.type === 'UntypedStorage' ? 'torch.storage' : 'torch';
    const id = tuple('storage', new PyGlobal(module, storage.type), key, 'cpu', storage.bytes.length / storage.width);
    return new PyPersistent(id);
  }

  /** The bytes of a file that holds a value, whose tensors this writer made. */
  archive(value: Py, options: ZipOptions & { protocol?: number; byteorder?: string; members?: Record<string, Uint8Array> } = {}): Buffer {
    const members: Record<string, Uint8Array> = {
      'archive/data.pkl': pickle(value, options.protocol ?? 2),
      'archive/byteorder': Buffer.from(options.byteorder ?? 'little'),
    };
    for (const [storage, key] of this.#keys) members[`archive/data/${key}`] = storage.bytes;
    members['archive/version'] = Buffer.from('3\n');
    return zip({ ...members, ...options.members }, options);
  }
}

function contiguous(shape: readonly number[]): number[] {
  return shape.map((_, axis) => shape.slice(axis + 1).reduce((n, size) => n * size, 1));
}
