import {
  type AllocateOptions,
  type Backend,
  type BufferHandle,
  DeepSpeedError,
  type DeviceMemory,
  type DType,
  type MemoryModel,
  type View,
} from '@deepspeed-ts/core';
import { SimulatedHeap } from './simulated-heap.js';

interface Block {
  readonly bytes: number;
  /** `undefined`: in the host's memory, which no allocator of ours serves. */
  readonly heap: SimulatedHeap | undefined;
  readonly start: number;
}

/**
 * A device that holds nothing and computes nothing, and counts what a real one would hold: a program run on it shows its memory in
 * milliseconds, whatever the size of the model. Whoever reads gets zeros.
 */
export class DryBackend implements Backend {
  readonly name: string;
  readonly dry = true;
  readonly #model: MemoryModel;
  readonly #heaps: readonly SimulatedHeap[];
  readonly #blocks = new Map<BufferHandle, Block>();
  readonly #scratch = new Map<string, number>();
  #nextHandle = 1;
  #live = 0;
  #peak = 0;
  #workspace = 0;
  #host = 0;
  #hostPeak = 0;

  constructor(model: MemoryModel) {
    this.name = model.name;
    this.#model = model;
    this.#heaps = model.heaps.map((rule) => new SimulatedHeap(rule));
  }

  allocate(bytes: number, options: AllocateOptions = {}): BufferHandle {
    if (this.isOnHost(options)) return this.#allocateOnHost(bytes);
    const { shared = false } = options;
    const heap = this.#heaps[this.#model.heapOf(bytes, shared)]!;
    const handle = this.#nextHandle++;
    this.#blocks.set(handle, { bytes, heap, start: heap.take(bytes)! });
    this.#live += bytes;
    this.#peak = Math.max(this.#peak, this.#live);
    return handle;
  }

  free(handle: BufferHandle): void {
    const block = this.#blocks.get(handle);
    if (!block) throw new DeepSpeedError('ERR_BAD_HANDLE', `[plan] buffer ${handle} is not allocated`);
    this.#blocks.delete(handle);
    if (block.heap) {
      block.heap.give(block.start);
      this.#live -= block.bytes;
    } else this.#host -= block.bytes;
  }

  /** Whether such a buffer is no part of the device's memory. */
  isOnHost({ host = false }: AllocateOptions): boolean {
    return host && this.#model.hostApart;
  }

  /** The most bytes that buffers held in the host's memory, beside the device's. */
  get hostPeak(): number {
    return this.#hostPeak;
  }

  write(): void {}

  async read(handle: BufferHandle, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    return this.readSync(handle, byteOffset, byteLength);
  }

  readSync(_handle: BufferHandle, _byteOffset: number, byteLength: number): Uint8Array {
    return new Uint8Array(byteLength);
  }

  supports(op: string, dtypes: readonly DType[]): boolean {
    return this.#model.supports(op, dtypes);
  }

  launch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): void {
    for (const [slot, bytes] of this.#model.scratch(op, inputs, outputs, attrs)) {
      const held = this.#scratch.get(slot) ?? 0;
      const wanted = bytes > 0 ? this.#model.scratchBlock(bytes) : 0;
      if (wanted <= held) continue;
      this.#scratch.set(slot, wanted);
      this.#workspace += wanted - held;
    }
  }

  async synchronize(): Promise<void> {}

  memory(): DeviceMemory {
    const reserved = this.#heaps.reduce((sum, heap) => sum + heap.reserved, 0);
    return { live: this.#live, reserved, peak: this.#peak, workspace: this.#workspace };
  }

  resetPeak(): void {
    this.#peak = this.#live;
  }

  #allocateOnHost(bytes: number): BufferHandle {
    const handle = this.#nextHandle++;
    this.#blocks.set(handle, { bytes, heap: undefined, start: 0 });
    this.#host += bytes;
    this.#hostPeak = Math.max(this.#hostPeak, this.#host);
    return handle;
  }
}
