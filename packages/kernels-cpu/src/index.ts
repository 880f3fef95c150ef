import { registerBackend } from '@deepspeed-ts/core';
import { CpuBackend } from './cpu-backend.js';
import { loadNative } from './load.js';

export { placeFromEnvironment, type WorldPlace } from '@deepspeed-ts/core';
export { type ConnectOptions, connect } from './comm/connect.js';
export { CpuCommunicator } from './comm/cpu-communicator.js';
export { CpuBackend } from './cpu-backend.js';
export { KernelError, type LoadAttempt, NativeLoadError } from './errors.js';
export { type CpuMemoryModelOptions, cpuMemoryModel } from './memory-model.js';
export type { InstructionSet } from './native.js';

export interface CpuBackendOptions {
  /** Threads that kernels use. Default: DEEPSPEED_TS_THREADS, else the CPUs of this process divided among the ranks of the host. */
  readonly threads?: number;
}

/**
 * Opens the CPU.
 *
 * @throws NativeLoadError when there is no native binary for this machine; it says what was tried and what helps
 */
export function cpuBackend(options: CpuBackendOptions = {}): CpuBackend {
  const backend = new CpuBackend(loadNative());
  if (options.threads !== undefined) backend.threads = options.threads;
  return backend;
}

registerBackend('cpu', () => cpuBackend(), { priority: 10 });
