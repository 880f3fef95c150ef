import { normals, streamOf, uniforms } from '../random/philox.js';

/**
 * Initial values of a parameter: elements `start` to `start + count` of it. Counter-based, so that a rank can make its slice
 * alone and every way of sharding begins with the same bits.
 */
export type Initializer = (key: { readonly seed: number; readonly name: string }, start: number, count: number) => Float64Array;

export const init = {
  constant:
    (value: number): Initializer =>
    (_, __, count) =>
      new Float64Array(count).fill(value),

  normal:
    (std: number, mean = 0): Initializer =>
    ({ seed, name }, start, count) =>
      normals({ seed, stream: streamOf(name) }, start, count).map((z) => mean + std * z),

  uniform:
    (low: number, high: number): Initializer =>
    ({ seed, name }, start, count) =>
      uniforms({ seed, stream: streamOf(name) }, start, count).map((u) => low + (high - low) * u),
};
