import type { DType } from '../dtype.js';
import type { View } from './backend.js';

/** A request for scratch memory: a slot keeps the most bytes that anybody asked it for. */
export type ScratchRequest = readonly [slot: string, bytes: number];

/** How one heap of a device's allocator takes memory from the system. */
export interface HeapRule {
  /** Blocks are multiples of this many bytes. */
  readonly block: number;
  /** It grows by multiples of this many bytes. */
  readonly step: number;
  /** The least that it grows by. */
  readonly least: number;
  /** Whether what it grew by joins what it had, as one range of addresses. */
  readonly joins: boolean;
}

/**
 * How a device spends memory, without the device: enough to run a program on nothing and say what it would take. What tensors ask for is
 * in the program; this is the rest.
 */
export interface MemoryModel {
  /** Of the backend. */
  readonly name: string;
  /** As `Backend.supports`. Which kernels there are decides which tensors a program makes. */
  supports(op: string, dtypes: readonly DType[]): boolean;
  /** Scratch memory of a launch. Where a kernel chooses by itself, the most that it may take. */
  scratch(op: string, inputs: readonly View[], outputs: readonly View[], attrs: readonly number[]): Iterable<ScratchRequest>;
  /** Bytes that a slot takes for a request. */
  scratchBlock(bytes: number): number;
  readonly heaps: readonly HeapRule[];
  /** Which of `heaps` serves a buffer. */
  heapOf(bytes: number, shared: boolean): number;
  /** Whether buffers that are asked for in host memory are no part of the device's. */
  readonly hostApart: boolean;
  /** Bytes of the device that are gone before the first tensor, by what takes them, for a rank of a world of `ranks`. */
  fixed(ranks: number): Readonly<Record<string, number>>;
  /** The most bytes of the host's memory that a rank takes beside those of the device, by what takes them. */
  host(ranks: number): Readonly<Record<string, number>>;
}
