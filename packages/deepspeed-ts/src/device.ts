import { existsSync } from 'node:fs';
import { type Backend, type Communicator, DeepSpeedError } from '@deepspeed-ts/core';

export type DeviceName = 'cpu' | 'cuda';

/** What runs a rank's kernels, and how its ranks meet. */
export interface OpenedDevice {
  readonly backend: Backend;
  /** As its driver calls it: 'NVIDIA H100 80GB HBM3'. Only of GPUs. */
  readonly name?: string | undefined;
  connect(): Promise<Communicator>;
}

/**
 * Opens what this rank computes on: the device named, else the one in DEEPSPEED_TS_DEVICE, else the GPU where there is one, else the
 * CPU. On a GPU, LOCAL_RANK picks which, and ranks meet through NCCL.
 *
 * @throws NoDeviceError when 'cuda' is asked for and can't be had, saying why
 */
export async function openDevice(name: string | undefined = process.env.DEEPSPEED_TS_DEVICE || undefined): Promise<OpenedDevice> {
  if (name !== undefined && name !== 'cpu' && name !== 'cuda')
    throw new DeepSpeedError('ERR_DEVICE', `[initialize] device: expected 'cpu' or 'cuda', got '${name}' (or from DEEPSPEED_TS_DEVICE)`);
  // Imported only when wanted: looking for a GPU starts the driver.
  if (name !== 'cpu') {
    const cuda = await import('@deepspeed-ts/kernels-cuda');
    if (name === 'cuda' || cuda.cudaDevices().length > 0) {
      const backend = cuda.cudaBackend();
      // Those of one host are taken to be alike.
      return { backend, name: cuda.cudaDevices()[0]?.name, connect: () => cuda.connect({ backend }) };
    }
    // A driver without a GPU to use: slow training would be the only sign of it.
    if (existsSync('/dev/nvidiactl') && (process.env.RANK ?? '0') === '0')
      console.warn(
        `[initialize] training on the CPU although there is an NVIDIA driver: ${cuda.whyNoCuda()}. device: 'cpu' or DEEPSPEED_TS_DEVICE=cpu says that this is meant`,
      );
  }
  const cpu = await import('@deepspeed-ts/kernels-cpu');
  return { backend: cpu.cpuBackend(), connect: () => cpu.connect() };
}
