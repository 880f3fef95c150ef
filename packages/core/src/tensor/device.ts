import type { AllocateOptions, Backend, BufferHandle } from '../backend/backend.js';
import { DisposedError, OutOfMemoryError } from '../errors.js';

/** What a block of memory is for; 'host' is memory of the host beside the device's, which on a CPU is the same. The counters of a device are kept by kind, so that ZeRO's arithmetic can be checked to the byte. */
export type MemoryKind = 'parameters' | 'gradients' | 'optimizer' | 'activations' | 'communication' | 'data' | 'host';

export interface KindCounters {
  live: number;
  peak: number;
}

/** A backend together with the exact counters of what lives on it. One per engine; two devices may share a backend. */
export class Device {
  readonly #kinds = new Map<MemoryKind, KindCounters>();
  readonly #buffers = new Set<Buffer>();

  constructor(readonly backend: Backend) {}

  get name(): string {
    return this.backend.name;
  }

  /** @throws OutOfMemoryError telling what is alive by kind, and what would help */
  allocate(bytes: number, kind: MemoryKind, options?: AllocateOptions): Buffer {
    const buffer = new Buffer(this, this.#reserve(bytes, options), bytes, kind);
    this.#buffers.add(buffer);
    const counters = this.#counters(kind);
    counters.live += bytes;
    counters.peak = Math.max(counters.peak, counters.live);
    return buffer;
  }

  /** Called by the buffer when its last owner lets go. */
  forget(buffer: Buffer): void {
    this.#buffers.delete(buffer);
    this.#counters(buffer.kind).live -= buffer.bytes;
    this.backend.free(buffer.handle);
  }

  /** Bytes asked for, now and at most, by kind. */
  memory(kind: MemoryKind): Readonly<KindCounters> {
    return { ...this.#counters(kind) };
  }

  resetPeaks(): void {
    for (const counters of this.#kinds.values()) counters.peak = counters.live;
    this.backend.resetPeak();
  }

  /** Buffers that somebody still owns; zero at the end of every test. */
  get liveBuffers(): number {
    return this.#buffers.size;
  }

  /** For a leak's report: what is alive, biggest first. */
  describeLive(): string[] {
    return [...this.#buffers]
      .sort((a, b) => b.bytes - a.bytes)
      .map((buffer) => `${buffer.bytes} bytes of ${buffer.kind} (handle ${buffer.handle}, ${buffer.owners} owners)`);
  }

  #reserve(bytes: number, options?: AllocateOptions): BufferHandle {
    try {
      return this.backend.allocate(bytes, options);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      const byKind = Object.fromEntries([...this.#kinds].map(([kind, { live }]) => [kind, live]));
      throw new OutOfMemoryError(error.device, error.requested, error.live, error.detail, byKind);
    }
  }

  #counters(kind: MemoryKind): KindCounters {
    let counters = this.#kinds.get(kind);
    if (!counters) {
      counters = { live: 0, peak: 0 };
      this.#kinds.set(kind, counters);
    }
    return counters;
  }
}

/** A counted block of device memory: freed when the last owner lets go, never by the garbage collector. */
export class Buffer {
  #owners = 1;

  constructor(
    readonly device: Device,
    readonly handle: BufferHandle,
    readonly bytes: number,
    readonly kind: MemoryKind,
  ) {}

  get owners(): number {
    return this.#owners;
  }

  retain(): this {
    if (this.#owners === 0) throw new DisposedError(`buffer ${this.handle}`);
    this.#owners++;
    return this;
  }

  release(): void {
    if (this.#owners === 0) throw new DisposedError(`buffer ${this.handle}`);
    if (--this.#owners === 0) this.device.forget(this);
  }
}
