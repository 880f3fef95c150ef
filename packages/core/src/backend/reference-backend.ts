import { bytesOf, type DType } from '../dtype.js';
import { DeepSpeedError } from '../errors.js';
import { referenceOp } from '../ops/registry.js';
import { decode, encode } from '../tensor/host.js';
import type { Backend, BufferHandle, DeviceMemory, View } from './backend.js';

/**
 * Plain TypeScript: every op runs its `reference` on doubles and stores the result rounded. Slow and obvious; it makes the
 * library work where no addon does, and it is what native kernels are compared with.
 */
export class ReferenceBackend implements Backend {
  readonly name = 'reference';
  readonly #buffers = new Map<BufferHandle, Uint8Array>();
  #nextHandle = 1;
  #live = 0;
  #peak = 0;

  allocate(bytes: number): BufferHandle {
    const handle = this.#nextHandle++;
    this.#buffers.set(handle, new Uint8Array(bytes));
    this.#live += bytes;
    this.#peak = Math.max(this.#peak, this.#live);
    return handle;
  }

  free(handle: BufferHandle): void {
    this.#live -= this.#buffer(handle).byteLength;
    this.#buffers.delete(handle);
  }

  write(handle: BufferHandle, byteOffset: number, bytes: Uint8Array): void {
    this.#buffer(handle).set(bytes, byteOffset);
  }

  async read(handle: BufferHandle, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    return this.readSync(handle, byteOffset, byteLength);
  }

  readSync(handle: BufferHandle, byteOffset: number, byteLength: number): Uint8Array {
    return this.#buffer(handle).slice(byteOffset, byteOffset + byteLength);
  }

  supports(op: string, _dtypes: readonly DType[]): boolean {
    return referenceOp(op) !== undefined;
  }

  launch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): void {
    const definition = referenceOp(op);
    if (!definition) throw new DeepSpeedError('ERR_UNKNOWN_OP', `[${op}] is not an op`);
    const host = (view: View) => decode(this.#bytes(view), view.shape, view.dtype);
    const results = outputs.map(host);
    definition.run(inputs.map(host), attrs, results);
    for (const [i, view] of outputs.entries()) this.write(view.handle, view.byteOffset, encode(results[i]!));
  }

  async synchronize(): Promise<void> {}

  memory(): DeviceMemory {
    return { live: this.#live, reserved: this.#live, peak: this.#peak, workspace: 0 };
  }

  resetPeak(): void {
    this.#peak = this.#live;
  }

  #bytes(view: View): Uint8Array {
    const length = view.shape.reduce((a, b) => a * b, 1) * bytesOf(view.dtype);
    return this.#buffer(view.handle).slice(view.byteOffset, view.byteOffset + length);
  }

  #buffer(handle: BufferHandle): Uint8Array {
    const buffer = this.#buffers.get(handle);
    if (!buffer) throw new DeepSpeedError('ERR_BAD_HANDLE', `[reference] buffer ${handle} is not allocated`);
    return buffer;
  }
}
