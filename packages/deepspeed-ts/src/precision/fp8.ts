import { type Communicator, ConfigError, type Device, Fp8Training, type Module } from '@deepspeed-ts/core';
import type { DeepSpeedConfig } from '../config/index.js';

/** The first GPUs with 8-bit tensor cores: Ada, then Hopper. */
const FIRST_CAPABILITY = 8.9;

/**
 * Linear layers in 8 bits, where the config asks for them.
 *
 * @throws ConfigError where the device can't multiply in 8 bits
 */
export async function fp8Of(
  { fp8 }: DeepSpeedConfig,
  model: Module,
  device: Device,
  communicator: Communicator,
): Promise<Fp8Training | undefined> {
  if (!fp8.enabled) return undefined;
  const refused = await whyNotFp8(device);
  if (refused)
    throw new ConfigError([
      `fp8.enabled: expected a GPU with 8-bit tensor cores (compute capability ${FIRST_CAPABILITY} or later, such as an H100), got ${refused}; leave fp8 out there`,
    ]);
  return new Fp8Training(model, device, {
    history: fp8.amax_history_len,
    amax: fp8.amax_compute_algo,
    margin: fp8.margin,
    fastBackward: fp8.fast_backward,
    communicator,
  });
}

async function whyNotFp8({ backend, name }: Device): Promise<string | undefined> {
  if (!backend.supports('fp8_matmul', ['bf16'])) return `the backend '${name}', which has no such kernels`;
  if (backend.name !== 'cuda') return undefined;
  const { CudaBackend, cudaDevices } = await import('@deepspeed-ts/kernels-cuda');
  const gpu = backend instanceof CudaBackend ? cudaDevices()[backend.index] : undefined;
  return gpu && Number(gpu.computeCapability) < FIRST_CAPABILITY ? `${gpu.name} of ${gpu.computeCapability}` : undefined;
}
