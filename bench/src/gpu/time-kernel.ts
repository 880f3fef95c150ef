import { castTo, copy, type Device, type DType, empty, launch, normals, scope, type Tensor, tensor } from '@deepspeed-ts/core';

/** More than any GPU's cache: what is read again within as many bytes could come from there. */
const CACHE_BYTES = 256 << 20;
const ROUND_MS = 40;
const ROUNDS = 5;

/**
 * Milliseconds of one call, the median of five rounds of back-to-back launches between two waits for the device. Launches are queued
 * ahead of the device, so the host's time does not show unless it is the longer one.
 */
export async function timeKernel(device: Device, run: (i: number) => void): Promise<number> {
  let call = 0;
  const round = async (calls: number) => {
    const start = performance.now();
    for (let i = 0; i < calls; i++) scope(() => run(call++));
    await device.backend.synchronize();
    return (performance.now() - start) / calls;
  };
  await round(4);
  const guess = await round(4);
  const calls = Math.max(4, Math.min(1000, Math.round(ROUND_MS / guess)));
  await round(calls);
  const times: number[] = [];
  for (let i = 0; i < ROUNDS; i++) times.push(await round(calls));
  return times.sort((a, b) => a - b)[ROUNDS >> 1]!;
}

/** How many sets of tensors of so many bytes to take turns with, so that none is still in the cache when its turn comes. */
export function setsFor(bytes: number): number {
  return Math.max(1, Math.min(16, Math.ceil(CACHE_BYTES / bytes) + 1));
}

/** Normal values: zeros would let the hardware run faster than real data does. */
export function random(device: Device, shape: readonly number[], dtype: DType = 'bf16', scale = 1): Tensor {
  const target = empty(device, shape, dtype).keep();
  scope(() => {
    const [chunk, flat] = [chunkOf(device, dtype, scale), target.view([target.numel])];
    for (let at = 0; at < target.numel; at += chunk.numel) {
      const length = Math.min(chunk.numel, target.numel - at);
      launch(copy, [chunk.narrow(0, length)], [flat.narrow(at, length)], {});
    }
  });
  return target;
}

const pattern = normals({ seed: 9 }, 0, (1 << 20) - 3);

function chunkOf(device: Device, dtype: DType, scale: number): Tensor {
  return castTo(
    tensor(
      device,
      pattern.map((z) => scale * z),
      'f32',
    ),
    dtype,
  );
}

/** Ids below `bound`, scattered. */
export function randomIds(device: Device, bound: number, shape: readonly number[]): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  const ids = Float64Array.from({ length: n }, (_, i) => Math.floor((((i * 2654435761) % 2 ** 32) / 2 ** 32) * bound));
  return tensor(device, ids, 'i32', shape).keep();
}
