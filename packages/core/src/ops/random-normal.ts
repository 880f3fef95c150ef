import { normals, type RandomKey, uniforms } from '../random/philox.js';
import { hostTensor } from '../tensor/host.js';
import { defineOp } from './define-op.js';

/** Philox key of a random array, and the index in it of the first element to make (exact up to 2^53). */
interface DrawAttrs extends Record<string, number> {
  seedLow: number;
  seedHigh: number;
  stream: number;
  start: number;
}

const DRAW = ['seedLow', 'seedHigh', 'stream', 'start'] as const;

/**
 * Fills an existing tensor with elements `start` and on of a normal random array: computed in double, rounded to f32, then to the
 * dtype, so that a slice has the bits of the whole and a low-precision copy those of the rounded f32 values.
 */
export const randomNormal = defineOp<DrawAttrs & { mean: number; std: number }>({
  name: 'random_normal',
  attrs: ['mean', 'std', ...DRAW],
  infer: () => [],
  reference(_, attrs, [y]) {
    const z = normals(keyOf(attrs), attrs.start, y!.data.length);
    for (let i = 0; i < z.length; i++) y!.data[i] = attrs.mean + attrs.std * z[i]!;
  },
  samples: () => cases({ mean: 0.25, std: 0.02 }),
});

/** Like `random_normal`, uniform in [low, high). */
export const randomUniform = defineOp<DrawAttrs & { low: number; high: number }>({
  name: 'random_uniform',
  attrs: ['low', 'high', ...DRAW],
  infer: () => [],
  reference(_, attrs, [y]) {
    const u = uniforms(keyOf(attrs), attrs.start, y!.data.length);
    for (let i = 0; i < u.length; i++) y!.data[i] = attrs.low + (attrs.high - attrs.low) * u[i]!;
  },
  samples: () => cases({ low: -0.5, high: 0.25 }),
});

function keyOf({ seedLow, seedHigh, stream }: DrawAttrs): RandomKey {
  return { seed: seedHigh * 2 ** 32 + seedLow, stream };
}

function cases<A extends Record<string, number>>(distribution: A) {
  return [
    {
      inputs: [],
      attrs: { ...distribution, seedLow: 7, seedHigh: 0, stream: 4000000000, start: 0 },
      outputs: [hostTensor([1037], 'f32')],
    },
    {
      inputs: [],
      attrs: { ...distribution, seedLow: 4294967295, seedHigh: 77, stream: 3, start: 2 ** 34 + 3 },
      outputs: [hostTensor([33], 'bf16')],
      note: 'an odd start beyond 2^34',
    },
    { inputs: [], attrs: { ...distribution, seedLow: 1, seedHigh: 1, stream: 0, start: 2 }, outputs: [hostTensor([5], 'f16')] },
  ];
}
