import { totalmem } from 'node:os';
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
import type { InstructionSet, NativeAddon } from './native.js';

/**
 * The CPU as a device: kernels run in order on a thread of their own, and on the pool that it leads. A process has one stream and
 * one memory, so every CpuBackend of a process shows the same counters.
 */
export class CpuBackend implements Backend {
  readonly name = 'cpu';
  readonly #native: NativeAddon;
  readonly #kernels: NativeKernels;

  constructor(native: NativeAddon) {
    this.#native = native;
    this.#kernels = new NativeKernels(this.name, native);
  }

  /** The addon, for the CPU communicator. */
  get native(): NativeAddon {
    return this.#native;
  }

  /** The instruction set that kernels run on: the machine's best, or the lower one in DEEPSPEED_TS_CPU_ISA. */
  get instructionSet(): InstructionSet {
    return this.#native.isa();
  }

  /** Threads that kernels use, the stream's included. Set it to take effect after the work that is queued now. */
  get threads(): number {
    return this.#native.threads();
  }
  set threads(count: number) {
    this.#native.setThreads(count);
  }

  /** @throws OutOfMemoryError the cache of freed memory has been given back then, and the backend stays usable */
  allocate(bytes: number, options: AllocateOptions = {}): BufferHandle {
    try {
      return this.#native.alloc(bytes, options.shared ?? false);
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
   *   queued until the first report; work queued after that report runs again. A group's error stays.
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
    await this.read(0, 0, 0); // no bytes of no buffer: only the stream's answer
  }

  memory(): DeviceMemory {
    return { ...this.#native.memory(), limit: memoryLimit() };
  }

  resetPeak(): void {
    this.#native.resetPeak();
  }

  /** Waits for the queued work and gives cached memory and workspace back to the system. */
  trim(): void {
    this.#native.trim();
  }
}

/** As the allocator has it (native/allocator.cc): the environment's word, else what the machine or the container has. */
function memoryLimit(): number {
  const asked = Number(process.env.DEEPSPEED_TS_CPU_MEMORY_LIMIT);
  if (Number.isInteger(asked) && asked >= 1) return asked;
  // 0 where nothing constrains the process.
  return Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}
