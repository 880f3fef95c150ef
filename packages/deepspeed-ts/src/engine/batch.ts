import { type Device, fromArray, Tensor } from '@deepspeed-ts/core';
import type { HostArray } from '../data/index.js';

/** A micro-batch: a record of arrays as a loader gives them, or of tensors on the engine's device. */
export type Batch = Readonly<Record<string, HostArray | Tensor>>;

/** Puts a micro-batch on the device. The tensors belong to the scope of the caller. */
export function toDevice(batch: Batch, device: Device): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(batch).map(([name, value]) => [name, value instanceof Tensor ? value : upload(value, device)]));
}

function upload({ data, shape }: HostArray, device: Device): Tensor {
  return fromArray(device, data, shape, { kind: 'data' });
}
