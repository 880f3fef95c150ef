import type { HostTensor } from '@deepspeed-ts/core';

/**
 * What errors of element i are measured against besides its own size. Rounding errors of a sum scale with its terms, for which stand the
 * root mean square of the tensor, or of the element's row where that is larger: the first rows of causal attention's gradients are.
 */
export function magnitudes({ shape, data }: HostTensor): (i: number) => number {
  const columns = Math.max(shape.at(-1) ?? 1, 1);
  const whole = Math.max(rms(data), 1e-30);
  const rows = Float64Array.from({ length: Math.ceil(data.length / columns) }, (_, row) =>
    Math.max(whole, rms(data.subarray(row * columns, (row + 1) * columns))),
  );
  return (i) => rows[Math.floor(i / columns)]!;
}

function rms(values: Float64Array): number {
  let sum = 0;
  let count = 0;
  for (const v of values) {
    if (!Number.isFinite(v)) continue;
    sum += v * v;
    count++;
  }
  return Math.sqrt(sum / Math.max(count, 1));
}
