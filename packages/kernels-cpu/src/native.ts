import type { NativeLaunches } from '@deepspeed-ts/core';
import type { NativeComm } from './comm/native-comm.js';

/** What the addon exports (native/addon.cc). Buffers are positive integers; errors carry `code` (calls) or `kind` (queued work). */
export interface NativeAddon extends NativeLaunches {
  /** Version of the package that the binary was built from. */
  readonly version: string;
  alloc(bytes: number, shared: boolean): number;
  free(handle: number): void;
  memory(): { live: number; reserved: number; peak: number; workspace: number };
  resetPeak(): void;
  /** Waits for the stream, then gives cached memory and workspace back to the system. */
  trim(): void;
  /** Every kernel with the instruction set that it runs on here. */
  kernels(): Record<string, InstructionSet>;
  write(handle: number, byteOffset: number, bytes: Uint8Array): void;
  read(handle: number, byteOffset: number, byteLength: number): Promise<Uint8Array>;
  readSync(handle: number, byteOffset: number, byteLength: number): Uint8Array;
  /** Rejects with the system's text. */
  readFile(handle: number, byteOffset: number, byteLength: number, file: number, position: number): Promise<number>;
  /** Takes effect in stream order. */
  setThreads(threads: number): void;
  threads(): number;
  isa(): InstructionSet;
  /** The communicator's functions. */
  readonly comm: NativeComm;
}

export type InstructionSet = 'baseline' | 'avx2' | 'avx512';

/** The error of a call that could not be queued. */
export interface NativeCallError extends Error {
  readonly code: 'OUT_OF_MEMORY' | 'BAD_HANDLE' | 'BAD_ARGUMENT' | 'ALREADY_LOADED';
}

/** The error of queued work, as a later read reports it. */
export interface NativeFailure extends Error {
  readonly kind: 'kernel' | 'peer_lost' | 'mismatch' | 'rendezvous' | 'internal';
  readonly op: string;
  readonly rank: number;
  readonly peer: number;
}
