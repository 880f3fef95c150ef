import { registerBackend } from '@deepspeed-ts/core';
import { CudaBackend } from './cuda-backend.js';
import { NativeLoadError, NoDeviceError } from './errors.js';
import { loadNative } from './load.js';
import type { CudaDevice, CudaLibraries } from './native.js';

export { type ConnectOptions, connect } from './comm/connect.js';
export { CudaCommunicator } from './comm/cuda-communicator.js';
export { CudaBackend } from './cuda-backend.js';
export { KernelError, type LoadAttempt, NativeLoadError, NoDeviceError } from './errors.js';
export { cudaMemoryModel } from './memory-model.js';
export type { CudaDevice, CudaLibraries, CudaLibrary } from './native.js';

export interface CudaBackendOptions {
  /** Which GPU, as CUDA counts in this process. Default: LOCAL_RANK where a launcher set it, else 0. */
  readonly device?: number;
  /** Gather launches into CUDA graphs; see `CudaBackend.useGraphs`. Default: DEEPSPEED_TS_CUDA_GRAPHS=1. */
  readonly graphs?: boolean;
}

/**
 * Opens a GPU.
 *
 * @throws NoDeviceError when there is none, saying why: no driver, an old one, no such GPU
 * @throws NativeLoadError when there is no native binary for this machine; it says what was tried and what helps
 */
export function cudaBackend({ device, graphs }: CudaBackendOptions = {}): CudaBackend {
  const backend = new CudaBackend(loadNative(), device ?? localRank());
  if (graphs ?? process.env.DEEPSPEED_TS_CUDA_GRAPHS === '1') backend.useGraphs();
  return backend;
}

/** The GPUs of this machine; none where there is no driver, no GPU, or no native binary: `whyNoCuda` tells. */
export function cudaDevices(): readonly CudaDevice[] {
  return discover().devices;
}

/** Why there is no GPU to use; `undefined` where there is one. */
export function whyNoCuda(): string | undefined {
  return discover().reason;
}

/** Where NVIDIA's libraries were found, or where they were looked for. */
export function cudaLibraries(): CudaLibraries {
  return loadNative().libraries();
}

function discover(): { devices: readonly CudaDevice[]; reason?: string } {
  try {
    return loadNative().devices();
  } catch (error) {
    if (error instanceof NativeLoadError) return { devices: [], reason: error.message };
    throw error;
  }
}

function localRank(): number {
  const value = process.env.LOCAL_RANK;
  if (value === undefined || value === '') return 0;
  if (!/^\d+$/.test(value)) throw new NoDeviceError(`LOCAL_RANK: expected the number of a GPU, got '${value}'`);
  return Number(value);
}

// Before the CPU where there is a GPU, behind it where there is none.
registerBackend('cuda', () => cudaBackend(), { priority: cudaDevices().length > 0 ? 20 : 0 });
