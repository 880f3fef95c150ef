// How frozen weights are kept in few bits: blocks of elements share a scale, their largest magnitude, and each element is the nearest
// of the values that a code may stand for, which lie in [-1, 1].

/** 'int8': 255 values in equal steps. 'nf4': 16 values that are equally likely among normal ones (Dettmers et al., arXiv:2305.14314). */
export type QuantizedFormat = 'int8' | 'nf4';

export const QUANTIZED_FORMATS: readonly QuantizedFormat[] = ['int8', 'nf4'];

/** Elements that share a scale. */
export const QUANTIZED_BLOCK = 64;

/** NormalFloat-4, as published (appendix E): quantiles of the normal distribution, scaled into [-1, 1], one of them zero. */
export const NF4_VALUES = Float32Array.of(
  ...[-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334],
  ...[-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
);

/** Where the nearest of them changes: code i stands for x in (boundaries[i - 1], boundaries[i]]. */
export const NF4_BOUNDARIES = Float32Array.from({ length: 15 }, (_, i) => (NF4_VALUES[i]! + NF4_VALUES[i + 1]!) / 2);

/** 1 / 127 in f32: 127 times it is 1, so that the largest magnitude of a block comes back as it was. */
export const INT8_STEP = Math.fround(1 / 127);

/** Codes that `elements` take, and bytes: i8 for 'int8', for 'nf4' u8 with two in each, the first in the upper half. */
export function codesOf(format: QuantizedFormat, elements: number): number {
  return format === 'int8' ? elements : Math.ceil(elements / 2);
}

/** Scales that `elements` take, f32. */
export function scalesOf(elements: number): number {
  return Math.ceil(elements / QUANTIZED_BLOCK);
}
