import {
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
import type { NativeAddon } from './native.js';

interface Kernel {
  readonly id: number;
  readonly floats: number;
}

/**
 * One NVIDIA GPU as a device. Launches are handed to a thread of the addon, which queues them on the GPU in order: a launch costs
 * JavaScript a fraction of a microsecond, and nothing but `readSync` waits for the device. A process drives one GPU.
 */
export class CudaBackend implements Backend {
  readonly name = 'cuda';
  /** Of the GPU, as CUDA counts in this process. */
  readonly index: number;
  readonly #native: NativeAddon;
  readonly #command: Float64Array;
  readonly #kernels = new Map<string, Kernel>();

  constructor(native: NativeAddon, index: number) {
    try {
      native.open(index);
    } catch (error) {
      throw callError(error);
    }
    this.index = index;
    this.#native = native;
    this.#command = native.command;
  }

  /** The addon, for the communicator. */
  get native(): NativeAddon {
    return this.#native;
  }

  /** @throws OutOfMemoryError the cache of freed memory has been given back then, and the backend stays usable */
  allocate(bytes: number): BufferHandle {
    try {
      return this.#native.alloc(bytes);
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

  supports(op: string, wanted: readonly DType[]): boolean {
    const { id, floats } = this.#kernel(op);
    return id >= 0 && wanted.every((dtype) => !isFloat(dtype) || (floats & (1 << dtypes[dtype].code)) !== 0);
  }

  launch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): void {
    const { id } = this.#kernel(op);
    if (id < 0) throw new DeepSpeedError('ERR_UNKNOWN_OP', `[cuda] there is no kernel '${op}'; ask supports() first`);
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
    await this.read(0, 0, 0); // no bytes of no buffer: only the device's answer
  }

  memory(): DeviceMemory {
    const { live, reserved, peak, workspace } = this.#native.memory();
    return { live, reserved, peak, workspace };
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
