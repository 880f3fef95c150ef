import { type Batch, DeepSpeedError, type Device, fromArray, type HostArray, Tensor } from '@deepspeed-ts/core';

/** Puts a micro-batch on the device. The tensors belong to the scope of the caller. */
export function toDevice(batch: Batch, device: Device): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(batch).map(([name, value]) => [name, value instanceof Tensor ? value : upload(value, device)]));
}

function upload({ data, shape }: HostArray, device: Device): Tensor {
  return fromArray(device, data, shape, { kind: 'data' });
}

/** Micro-batches of a step out of an iterator, and an error that says how many were wanted where it ends early. */
export function drawFrom(batches: Iterable<Batch> | Iterator<Batch>, wanted: number): () => Batch {
  const source = Symbol.iterator in batches ? batches[Symbol.iterator]() : batches;
  let drawn = 0;
  return () => {
    const { value, done } = source.next();
    if (done) throw new DeepSpeedError('ERR_DATA', `[trainBatch] a step takes ${wanted} micro-batches, the iterator ended after ${drawn}`);
    drawn++;
    return value;
  };
}
