import type { DType } from '../dtype.js';

/** An integer that names a block of a backend's memory: cheap to pass across N-API (a wrapped object costs ten times as much). */
export type BufferHandle = number;

/** A contiguous row-major tensor as a backend sees it. */
export interface View {
  readonly handle: BufferHandle;
  /** Bytes from the start of the buffer. */
  readonly byteOffset: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Exact byte counters of one device. */
export interface DeviceMemory {
  /** Bytes asked for by buffers that are alive. */
  readonly live: number;
  /** Bytes taken from the system, the allocator's cache included. */
  readonly reserved: number;
  /** Highest `live` since the start or the last `resetPeak()`. */
  readonly peak: number;
  /** Scratch memory of kernels, kept between calls. */
  readonly workspace: number;
  /** What `reserved` may reach, where that is known. */
  readonly limit?: number;
}

export interface AllocateOptions {
  /** Place the block where peer ranks can reach it without a copy (shared memory on the CPU). */
  readonly shared?: boolean;
  /** Place the block in host memory that the device reaches by itself, beside its own: on a GPU page-locked, and no part of its counters. Kernels may read and write it, slowly; `copy` is what it is for. */
  readonly host?: boolean;
}

/**
 * A device that holds memory and runs kernels. Work is queued in one order (a stream): `write`, `launch`, `read` and what a
 * Communicator queues happen as if one after the other, so memory given to `free` may be reused by the next command at once.
 * Nothing blocks the event loop except `readSync`.
 */
export interface Backend {
  readonly name: string;
  /** Memory is counted here, not held: whoever would only make values to write may leave that out. */
  readonly dry?: boolean;
  allocate(bytes: number, options?: AllocateOptions): BufferHandle;
  free(handle: BufferHandle): void;
  /** Copies host bytes in; `bytes` may be reused as soon as the call returns. */
  write(handle: BufferHandle, byteOffset: number, bytes: Uint8Array): void;
  /** Resolves once everything queued before it has run; rejects with the first error of that work. */
  read(handle: BufferHandle, byteOffset: number, byteLength: number): Promise<Uint8Array>;
  readSync(handle: BufferHandle, byteOffset: number, byteLength: number): Uint8Array;
  /**
   * Reads bytes of an open file into a buffer, several calls at a time, on threads of its own. No part of the stream: what was queued on
   * that memory must have run, and the buffer must not be freed before the answer. Resolves with the bytes read, fewer where the file ends.
   */
  readFile?(handle: BufferHandle, byteOffset: number, byteLength: number, file: number, position: number): Promise<number>;
  /** Whether there is a kernel for the op that takes these float dtypes. Where there is none, core runs the op's reference. */
  supports(op: string, dtypes: readonly DType[]): boolean;
  /** Queues a kernel. `attrs` in the order that the op declares. Outputs may be read too (accumulation, in-place optimizers). */
  launch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): void;
  synchronize(): Promise<void>;
  memory(): DeviceMemory;
  resetPeak(): void;
}
