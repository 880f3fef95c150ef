// Dynamic tree quantisation in 8 bits (Dettmers, arXiv:1511.04561; as used for optimizer states by Dettmers et al., arXiv:2110.02861):
// seven decades below 1, the larger a decade the more values it has, in equal steps. Small and large values both keep their relative
// precision, which moments of Adam need.

/** Elements that share one scale, their largest magnitude. */
export const CODE_BLOCK = 256;

const DECADES = 7;

/**
 * The 256 values that codes stand for, ascending, at most 1, rounded to f32. Decade i ends at 10^(i-6) and has 2^i values, the middles of as many
 * equal parts of its upper nine tenths; twice as many where there is no sign to keep. 0 and 1 besides.
 */
export function codeValues(signed: boolean): Float32Array {
  const magnitudes: number[] = [];
  for (let decade = 0; decade < DECADES; decade++) {
    const parts = 2 ** (signed ? decade : decade + 1);
    for (let i = 0; i < parts; i++) magnitudes.push(10 ** (decade + 1 - DECADES) * (0.1 + (0.9 * (i + 0.5)) / parts));
  }
  const negative = signed ? magnitudes.map((value) => -value).reverse() : [];
  return Float32Array.from([...negative, 0, ...magnitudes, 1]);
}

/** Where the nearest value changes: code i stands for x in (boundaries[i - 1], boundaries[i]]. */
export function codeBoundaries(values: Float32Array): Float32Array {
  return Float32Array.from({ length: values.length - 1 }, (_, i) => (values[i]! + values[i + 1]!) / 2);
}

/** The code of the value nearest to x. */
export function nearestCode(boundaries: Float32Array, x: number): number {
  let code = 0;
  for (let step = 128; step > 0; step /= 2) if (x > boundaries[code + step - 1]!) code += step;
  return code;
}
