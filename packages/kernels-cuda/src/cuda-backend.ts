import {
  type AllocateOptions,
  type Backend,
  type BufferHandle,
  type DeviceMemory,
  type DType,
  NativeKernels,
  type View,
} from '@deepspeed-ts/core';
import { allocationError, callError, failureError } from './errors.js';
import type { NativeAddon } from './native.js';

/**
 * One NVIDIA GPU as a device. Launches are handed to a thread of the addon, which queues them on the GPU in order: a launch costs
 * JavaScript a fraction of a microsecond, and nothing but `readSync` waits for the device. A process drives one GPU.
 */
export class CudaBackend implements Backend {
  readonly name = 'cuda';
  /** Of the GPU, as CUDA counts in this process. */
  readonly index: number;
  readonly #native: NativeAddon;
  readonly #kernels: NativeKernels;

  constructor(native: NativeAddon, index: number) {
    try {
      native.open(index);
    } catch (error) {
      throw callError(error);
    }
    this.index = index;
    this.#native = native;
    this.#kernels = new NativeKernels(this.name, native);
  }

  /** The addon, for the communicator. */
  get native(): NativeAddon {
    return this.#native;
  }

  /** @throws OutOfMemoryError the cache of freed memory has been given back then, and the backend stays usable */
  allocate(bytes: number, { host = false }: AllocateOptions = {}): BufferHandle {
    try {
      return this.#native.alloc(bytes, host);
    } catch (error) {
      throw allocationError(error, bytes, this.#native.memory().live);
    }
  }

  free(handle: BufferHandle): void {
    try {
      this.#native.free(handle);
    } catch (error) {
      throw callError(error);
    }
  }

  write(handle: BufferHandle, byteOffset: number, bytes: Uint8Array): void {
    try {
      this.#native.write(handle, byteOffset, bytes);
    } catch (error) {
      throw callError(error);
    }
  }

  /**
   * Resolves once everything queued before has run.
   *
   * @throws KernelError, PeerLostError, ... the first error of work queued before. A kernel's error is reported by every read
   *   queued until the first report; work queued after that report runs again. An error of the device or of a group stays.
   */
  async read(handle: BufferHandle, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    try {
      return await this.#native.read(handle, byteOffset, byteLength);
    } catch (error) {
      throw callError(failureError(error));
    }
  }

  readSync(handle: BufferHandle, byteOffset: number, byteLength: number): Uint8Array {
    try {
      return this.#native.readSync(handle, byteOffset, byteLength);
    } catch (error) {
      throw callError(failureError(error));
    }
  }

  async readFile(handle: BufferHandle, byteOffset: number, byteLength: number, file: number, position: number): Promise<number> {
    try {
      return await this.#native.readFile(handle, byteOffset, byteLength, file, position);
    } catch (error) {
      throw callError(error);
    }
  }

  supports(op: string, wanted: readonly DType[]): boolean {
    return this.#kernels.supports(op, wanted);
  }

  launch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): void {
    try {
      this.#kernels.launch(op, inputs, outputs, attrs);
    } catch (error) {
      throw callError(error);
    }
  }

  async synchronize(): Promise<void> {
    await this.read(0, 0, 0); // no bytes of no buffer: only the device's answer
  }

  memory(): DeviceMemory {
    const { live, reserved, peak, workspace, deviceTotal } = this.#native.memory();
    const limit = Math.min(Number(process.env.DEEPSPEED_TS_CUDA_MEMORY_LIMIT || deviceTotal), deviceTotal);
    return { live, reserved, peak, workspace, limit };
  }

  resetPeak(): void {
    this.#native.resetPeak();
  }

  /**
   * Gathers launches into CUDA graphs between two points where the host looks at the device. Results stay the same bits; many small
   * kernels follow each other faster. Worth it where a step is short.
   */
  useGraphs(on = true): void {
    this.#native.graphs(on);
  }

  /** Waits for the queued work and gives cached memory and workspace back to the device. */
  trim(): void {
    this.#native.trim();
  }
}
