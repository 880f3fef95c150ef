import { PickleLeaf } from '../pickle/values.js';
import type { HostTensor } from '../tensor/host.js';
import { type TorchDType, torchDTypes } from './dtypes.js';
import { TorchFileError } from './error.js';

/** Bytes in a file that tensors are views of. */
export class TorchStorage extends PickleLeaf {
  constructor(
    readonly path: string,
    readonly key: string,
    /** Of its elements; `undefined` where tensors bring theirs. */
    readonly dtype: TorchDType | undefined,
    readonly byteLength: number,
    /** The file was written by a machine that puts the high byte first. */
    readonly bigEndian: boolean,
    /** Reads from the file, within `byteLength`. */
    readonly read: (offset: number, length: number) => Uint8Array,
  ) {
    super();
  }

  get what(): string {
    return `a storage of ${this.byteLength} bytes`;
  }
}

/** Tensors that repeat elements of their storage (strides of 0) may be this much larger than it, in elements. */
const MAX_REPEATED = 2 ** 24;

/** A tensor in a file: its elements are read when asked for. */
export class TorchTensor extends PickleLeaf {
  readonly numel: number;

  constructor(
    readonly dtype: TorchDType,
    readonly shape: readonly number[],
    /** In elements. */
    readonly strides: readonly number[],
    /** Of the first element in the storage, in elements. */
    readonly offset: number,
    readonly storage: TorchStorage,
  ) {
    super();
    this.numel = shape.reduce((n, size) => n * size, 1);
    const last = this.numel === 0 ? offset - 1 : offset + shape.reduce((sum, size, i) => sum + (size - 1) * strides[i]!, 0);
    const held = Math.floor(storage.byteLength / this.width);
    if (last >= held && this.numel > 0) throw this.#error(`reaches to element ${last} of a storage of ${held}`);
    if (this.numel > held + MAX_REPEATED) throw this.#error(`repeats the elements of a storage of ${held}`);
  }

  get what(): string {
    return `a tensor ${this.dtype} [${this.shape.join(', ')}]`;
  }

  /** Bytes of an element. */
  get width(): number {
    return torchDTypes[this.dtype].bytes;
  }

  get isContiguous(): boolean {
    let expected = 1;
    for (let i = this.shape.length - 1; i >= 0; i--) {
      if (this.shape[i] !== 1 && this.strides[i] !== expected) return false;
      expected *= this.shape[i]!;
    }
    return true;
  }

  /** Elements `start` to `start + count` in row-major order, little endian. Only these are read where the tensor is contiguous. */
  bytes(start = 0, count = this.numel - start): Uint8Array {
    if (start < 0 || count < 0 || start + count > this.numel) throw this.#error(`has no elements ${start} to ${start + count}`);
    if (count === 0) return new Uint8Array(0);
    const { width, storage } = this;
    const bytes = this.isContiguous
      ? storage.read((this.offset + start) * width, count * width)
      : this.#gather(Array.from({ length: count }, (_, i) => this.#place(start + i)));
    return storage.bigEndian && width > 1 ? swap(bytes, this.dtype.startsWith('c') ? width / 2 : width) : bytes;
  }

  /** The same as values: elements `start` to `start + count`, as one axis unless it is the whole tensor. @throws TorchFileError for complex numbers */
  values(start = 0, count = this.numel - start): HostTensor {
    const { decode } = torchDTypes[this.dtype];
    if (!decode) throw this.#error('has a dtype that is not supported');
    return decode(this.bytes(start, count), count === this.numel ? this.shape : [count]);
  }

  /** The value of a tensor of one element. */
  item(): number {
    if (this.numel !== 1) throw this.#error('has more or fewer than one element');
    return this.values().data[0]!;
  }

  /** In the storage, of an element counted in row-major order. */
  #place(index: number): number {
    let place = this.offset;
    let rest = index;
    for (let i = this.shape.length - 1; i >= 0; i--) {
      place += (rest % this.shape[i]!) * this.strides[i]!;
      rest = Math.floor(rest / this.shape[i]!);
    }
    return place;
  }

  #gather(places: readonly number[]): Uint8Array {
    const { width } = this;
    let [first, last] = [places[0]!, places[0]!];
    for (const place of places) [first, last] = [Math.min(first, place), Math.max(last, place)];
    const all = this.storage.read(first * width, (last - first + 1) * width);
    const bytes = new Uint8Array(places.length * width);
    for (const [i, place] of places.entries()) bytes.set(all.subarray((place - first) * width, (place - first + 1) * width), i * width);
    return bytes;
  }

  #error(detail: string): TorchFileError {
    return new TorchFileError(this.storage.path, `${this.what} in storage '${this.storage.key}' ${detail}`);
  }
}

function swap(bytes: Uint8Array, width: number): Uint8Array {
  for (let at = 0; at < bytes.length; at += width) bytes.subarray(at, at + width).reverse();
  return bytes;
}
