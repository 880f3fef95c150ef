import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { bytesOf } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import { decode, type HostTensor } from '../tensor/host.js';
import { numelOf } from '../tensor/tensor.js';
import { dtypeOf, MAX_HEADER_BYTES, type TensorEntry } from './format.js';

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
    const entry = this.#entry(name);
    const shape = [count];
    const numel = numelOf(entry.shape);
    if (start < 0 || count < 0 || start + count > numel) {
      throw this.#error(`expected elements within 0..${numel} of tensor '${name}', got ${start}..${start + count}`);
    }
    const dtype = dtypeOf(entry.dtype);
    const [begin] = entry.data_offsets;
    const read = (width: number) => this.#read(this.#dataStart + begin + start * width, count * width);
    // There are no f64 tensors here: the values stay exact in JavaScript, and are rounded when written to a device.
    if (entry.dtype === 'F64') return { shape, dtype: 'f32', data: new Float64Array(read(8).buffer) };
    if (!dtype) throw this.#error(`tensor '${name}' has dtype ${entry.dtype}, which is not supported`);
    return decode(read(bytesOf(dtype)), shape, dtype);
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
      if (n === 0) throw this.#error(`expected ${length} bytes at ${position}, got ${done}: the file is truncated`);
      done += n;
    }
    return bytes;
  }

  #error(detail: string): DeepSpeedError {
    return new DeepSpeedError('ERR_SAFETENSORS', `[safetensors] ${this.path}: ${detail}`);
  }
}
