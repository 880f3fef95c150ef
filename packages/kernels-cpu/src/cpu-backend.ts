import {
  type AllocateOptions,
  type Backend,
  type BufferHandle,
  DeepSpeedError,
  type DeviceMemory,
  type DType,
  dtypes,
  isFloat,
  type View,
} from '@deepspeed-ts/core';
import { allocationError, callError, failureError } from './errors.js';
import type { InstructionSet, NativeAddon } from './native.js';

interface Kernel {
  readonly id: number;
  readonly floats: number;
}

/**
 * The CPU as a device: kernels run in order on a thread of their own, and on the pool that it leads. A process has one stream and
 * one memory, so every CpuBackend of a process shows the same counters.
 */
export class CpuBackend implements Backend {
  readonly name = 'cpu';
  readonly #native: NativeAddon;
  readonly #command: Float64Array;
  readonly #kernels = new Map<string, Kernel>();

  constructor(native: NativeAddon) {
    this.#native = native;
    this.#command = native.command;
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

  supports(op: string, wanted: readonly DType[]): boolean {
    const { id, floats } = this.#kernel(op);
    return id >= 0 && wanted.every((dtype) => !isFloat(dtype) || (floats & (1 << dtypes[dtype].code)) !== 0);
  }

  launch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): void {
    const { id } = this.#kernel(op);
    if (id < 0) throw new DeepSpeedError('ERR_UNKNOWN_OP', `[cpu] there is no kernel '${op}'; ask supports() first`);
    const command = this.#command;
    command[0] = id;
    command[1] = inputs.length;
    command[2] = outputs.length;
    command[3] = attrs.length;
    let at = 4;
    for (let i = 0; i < inputs.length; i++) at = encodeView(command, at, inputs[i]!);
    for (let i = 0; i < outputs.length; i++) at = encodeView(command, at, outputs[i]!);
    for (let i = 0; i < attrs.length; i++) command[at++] = attrs[i]!;
    try {
      this.#native.launch(at);
    } catch (error) {
      throw callError(error);
    }
  }

  async synchronize(): Promise<void> {
    await this.read(0, 0, 0); // no bytes of no buffer: only the stream's answer
  }

  memory(): DeviceMemory {
    return this.#native.memory();
  }

  resetPeak(): void {
    this.#native.resetPeak();
  }

  /** Waits for the queued work and gives cached memory and workspace back to the system. */
  trim(): void {
    this.#native.trim();
  }

  #kernel(op: string): Kernel {
    let kernel = this.#kernels.get(op);
    if (!kernel) {
      const id = this.#native.opId(op);
      kernel = { id, floats: this.#native.opDtypes(id) };
      this.#kernels.set(op, kernel);
    }
    return kernel;
  }
}

function encodeView(command: Float64Array, at: number, view: View): number {
  const { shape } = view;
  command[at] = view.handle;
  command[at + 1] = view.byteOffset;
  command[at + 2] = dtypes[view.dtype].code;
  command[at + 3] = shape.length;
  at += 4;
  for (let i = 0; i < shape.length; i++) command[at++] = shape[i]!;
  return at;
}
