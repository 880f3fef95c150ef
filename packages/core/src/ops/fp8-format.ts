// The 8-bit float formats of Micikevicius et al., "FP8 formats for deep learning" (arXiv:2209.05433), on the host.

/** e4m3 keeps more of a value's precision, e5m2 more of its range: for values and for gradients. */
export type Fp8Format = 'e4m3' | 'e5m2';

const FORMATS = {
  // Exponent bias, bits of the fraction, largest finite value and the code of NaN.
  e4m3: { bias: 7, fraction: 3, largest: 448, nan: 0x7f },
  e5m2: { bias: 15, fraction: 2, largest: 57344, nan: 0x7f },
} as const;

export const formatOf = (e5m2: number): Fp8Format => (e5m2 ? 'e5m2' : 'e4m3');

/** The code nearest to a value, ties to the even one; what is too large becomes the largest finite value. */
export function encodeFp8(value: number, format: Fp8Format): number {
  const { bias, fraction, largest, nan } = FORMATS[format];
  if (Number.isNaN(value)) return nan;
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= largest) return sign | encodeFp8Magnitude(largest, bias, fraction);
  return sign | Math.min(encodeFp8Magnitude(magnitude, bias, fraction), encodeFp8Magnitude(largest, bias, fraction));
}

/** Codes of magnitudes count up: exponent and fraction together, subnormal values first. */
function encodeFp8Magnitude(magnitude: number, bias: number, fraction: number): number {
  const smallest = 2 ** (1 - bias);
  if (magnitude < smallest) return roundEven(magnitude / (smallest / 2 ** fraction));
  const exponent = exponentOf(magnitude);
  return (exponent + bias - 1) * 2 ** fraction + roundEven((magnitude / 2 ** exponent) * 2 ** fraction);
}

export function decodeFp8(code: number, format: Fp8Format): number {
  const { bias, fraction } = FORMATS[format];
  const sign = code & 0x80 ? -1 : 1;
  const magnitude = code & 0x7f;
  if (format === 'e4m3' ? magnitude === 0x7f : magnitude > 0x7c) return Number.NaN;
  if (magnitude === 0x7c && format === 'e5m2') return sign * Number.POSITIVE_INFINITY;
  const exponent = magnitude >> fraction;
  const rest = (magnitude & (2 ** fraction - 1)) / 2 ** fraction;
  return sign * (exponent === 0 ? rest * 2 ** (1 - bias) : (1 + rest) * 2 ** (exponent - bias));
}

/**
 * The largest power of two that brings magnitudes up to `amax` into the format's range, 2^margin below its end; `present` where there
 * is nothing to go by. Powers of two scale without rounding.
 */
export function fp8Scale(amax: number, format: Fp8Format, margin: number, present: number): number {
  if (!(amax > 0 && amax <= 3.4e38)) return present > 0 ? present : 1;
  const exponent = exponentOf(Math.fround(FORMATS[format].largest / amax)) - margin;
  return 2 ** Math.max(-100, Math.min(100, exponent));
}

const f64 = new Float64Array(1);
const words = new Uint32Array(f64.buffer);

/** floor(log2(x)) of a positive normal number. */
function exponentOf(x: number): number {
  f64[0] = x;
  return ((words[1]! >>> 20) & 0x7ff) - 1023;
}

function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
