import { closeSync, fstatSync, openSync, read, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { bytesOf, type DType } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import { fillFromFile } from '../tensor/fill-from-file.js';
import { decode, type HostTensor } from '../tensor/host.js';
import { numelOf, type Tensor } from '../tensor/tensor.js';
import { dtypeOf, MAX_HEADER_BYTES, type TensorEntry } from './format.js';

const readAsync = promisify(read);

/** A safetensors file opened for reading: the header is checked at once, tensors are read when asked for. */
export class SafetensorsFile {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #file: number;
  readonly #dataStart: number;

  /** @throws DeepSpeedError ERR_SAFETENSORS naming the file where it is truncated or not such a file */
  constructor(readonly path: string) {
    this.#file = openSync(path, 'r');
    try {
      const size = fstatSync(this.#file).size;
      const prefix = this.#read(0, Math.min(8, size));
      const length = size < 8 ? 0 : Number(new DataView(prefix.buffer).getBigUint64(0, true));
      if (size < 8 || length > MAX_HEADER_BYTES || 8 + length > size) {
        throw this.#error(`expected a header of ${length} bytes, the file has ${size}: it is truncated or not a safetensors file`);
      }
      const { __metadata__ = {}, ...entries } = this.#header(length);
      this.metadata = __metadata__ as unknown as Record<string, string>;
      this.entries = new Map(Object.entries(entries as Record<string, TensorEntry>));
      this.#dataStart = 8 + length;
      this.#check(size - this.#dataStart);
    } catch (error) {
      closeSync(this.#file);
      throw error;
    }
  }

  get names(): string[] {
    return [...this.entries.keys()];
  }

  tensor(name: string): HostTensor {
    const { shape } = this.#entry(name);
    return { ...this.slice(name, 0, numelOf(shape)), shape };
  }

  /** Elements `start` to `start + count` of a tensor, in row-major order, as one axis. Only these are read. */
  slice(name: string, start: number, count: number): HostTensor {
    const { dtype, position, width } = this.#place(name, start, count);
    const bytes = this.#read(position, count * width);
    // There are no f64 tensors here: the values stay exact in JavaScript, and are rounded when written to a device.
    if (dtype === 'f64') return { shape: [count], dtype: 'f32', data: new Float64Array(bytes.buffer) };
    return decode(bytes, [count], dtype);
  }

  /** As {@link slice}, in bytes as they are stored, and read beside what else goes on. */
  async readBytes(name: string, start: number, count: number): Promise<{ dtype: DType; bytes: Uint8Array }> {
    const { dtype, position, width } = this.#place(name, start, count);
    if (dtype === 'f64') throw this.#error(`tensor '${name}' has dtype F64, which no device holds`);
    const bytes = new Uint8Array(count * width);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await readAsync(this.#file, bytes, done, bytes.length - done, position + done);
      if (bytesRead === 0) throw this.#short(bytes.length, position, done);
      done += bytesRead;
    }
    return { dtype, bytes };
  }

  /** Fills a tensor of the dtype that is stored with elements of `name` from `start` on. Not in stream order; see `fillFromFile`. */
  async readInto(name: string, start: number, target: Tensor): Promise<void> {
    const { dtype, position } = this.#place(name, start, target.numel);
    if (dtype !== target.dtype) throw this.#error(`tensor '${name}' has dtype ${dtype}, it can't be read into ${target.dtype}`);
    const got = await fillFromFile(target, this.#file, position);
    if (got < target.byteLength) throw this.#short(target.byteLength, position, got);
  }

  close(): void {
    closeSync(this.#file);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #entry(name: string): TensorEntry {
    const entry = this.entries.get(name);
    if (!entry)
      throw this.#error(`there is no tensor '${name}'; there are ${this.entries.size}: ${this.names.slice(0, 5).join(', ')}, ...`);
    return entry;
  }

  /** Where a slice lies in the file. @throws DeepSpeedError where it is not within its tensor */
  #place(name: string, start: number, count: number): { dtype: DType | 'f64'; position: number; width: number } {
    const entry = this.#entry(name);
    const numel = numelOf(entry.shape);
    if (start < 0 || count < 0 || start + count > numel) {
      throw this.#error(`expected elements within 0..${numel} of tensor '${name}', got ${start}..${start + count}`);
    }
    const dtype = entry.dtype === 'F64' ? 'f64' : dtypeOf(entry.dtype);
    if (!dtype) throw this.#error(`tensor '${name}' has dtype ${entry.dtype}, which is not supported`);
    const width = dtype === 'f64' ? 8 : bytesOf(dtype);
    return { dtype, position: this.#dataStart + entry.data_offsets[0] + start * width, width };
  }

  #header(length: number): Record<string, TensorEntry> {
    try {
      return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(this.#read(8, length)));
    } catch (cause) {
      throw this.#error(`the header is not JSON (${(cause as Error).message})`);
    }
  }

  #check(dataBytes: number): void {
    for (const [name, { dtype, shape, data_offsets }] of this.entries) {
      const [begin = -1, end = -1] = data_offsets ?? [];
      const known = dtypeOf(dtype);
      const expected = known && shape.reduce((n, size) => n * size, 1) * bytesOf(known);
      if (begin < 0 || end < begin || end > dataBytes) {
        throw this.#error(`tensor '${name}' lies at bytes ${begin} to ${end} of ${dataBytes}: the file is truncated`);
      }
      if (expected !== undefined && end - begin !== expected) {
        throw this.#error(`tensor '${name}' of ${dtype} [${shape.join(', ')}] needs ${expected} bytes, the header gives ${end - begin}`);
      }
    }
  }

  #read(position: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const n = readSync(this.#file, bytes, done, length - done, position + done);
      if (n === 0) throw this.#short(length, position, done);
      done += n;
    }
    return bytes;
  }

  #short(length: number, position: number, got: number): DeepSpeedError {
    return this.#error(`expected ${length} bytes at ${position}, got ${got}: the file is truncated`);
  }

  #error(detail: string): DeepSpeedError {
    return new DeepSpeedError('ERR_SAFETENSORS', `[safetensors] ${this.path}: ${detail}`);
  }
}
