import type { NativeLaunches } from '@deepspeed-ts/core';
import type { NativeComm } from './comm/native-comm.js';

/** What the addon exports (native/addon.cc). Buffers are positive integers; errors carry `code` (calls) or `kind` (queued work). */
export interface NativeAddon extends NativeLaunches {
  /** Version of the package that the binary was built from. */
  readonly version: string;
  /** Never throws: without a driver the list is empty and `reason` says why. */
  devices(): { readonly devices: readonly CudaDevice[]; readonly reason?: string };
  /** Makes a GPU this process's; the first call decides. */
  open(index: number): void;
  libraries(): CudaLibraries;
  /** `host`: page-locked memory of the host, which kernels reach. */
  alloc(bytes: number, host: boolean): number;
  free(handle: number): void;
  memory(): { live: number; reserved: number; peak: number; host: number; workspace: number; deviceFree: number; deviceTotal: number };
  resetPeak(): void;
  /** Waits for the device, then gives cached memory and workspace back to it. */
  trim(): void;
  kernels(): string[];
  /** Whether launches are gathered into CUDA graphs from here on. */
  graphs(on: boolean): void;
  write(handle: number, byteOffset: number, bytes: Uint8Array): void;
  read(handle: number, byteOffset: number, byteLength: number): Promise<Uint8Array>;
  readSync(handle: number, byteOffset: number, byteLength: number): Uint8Array;
  /** Rejects with the system's text. */
  readFile(handle: number, byteOffset: number, byteLength: number, file: number, position: number): Promise<number>;
  /** The communicator's functions. */
  readonly comm: NativeComm;
}

/** A GPU that this process could use. */
export interface CudaDevice {
  readonly name: string;
  /** As NVIDIA counts, '9.0' for Hopper. */
  readonly computeCapability: string;
  /** Bytes. */
  readonly memory: number;
  readonly multiprocessors: number;
}

/** One of NVIDIA's libraries: where it was found, or where it was looked for. */
export interface CudaLibrary {
  readonly path?: string;
  readonly reason?: string;
}

export interface CudaLibraries {
  /** Matrix products; needed. */
  readonly cublasLt: CudaLibrary;
  /** The fastest attention; without it kernels of our own serve. */
  readonly cudnn: CudaLibrary;
  /** Collectives; needed for more than one GPU. */
  readonly nccl: CudaLibrary;
}

/** The error of a call that could not be queued. */
export interface NativeCallError extends Error {
  readonly code: 'OUT_OF_MEMORY' | 'BAD_HANDLE' | 'BAD_ARGUMENT' | 'ALREADY_LOADED' | 'NO_DEVICE';
}

/** The error of queued work, as a later read reports it. */
export interface NativeFailure extends Error {
  readonly kind: 'kernel' | 'peer_lost' | 'mismatch' | 'rendezvous' | 'internal';
  readonly op: string;
  readonly rank: number;
  readonly peer: number;
}
