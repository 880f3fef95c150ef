import { describe, expect, it } from 'vitest';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from './half.js';

interface Format {
  readonly name: string;
  readonly encode: (value: number) => number;
  readonly decode: (bits: number) => number;
  readonly exponentBits: number;
  readonly fractionBits: number;
}

const formats: Format[] = [
  { name: 'bf16', encode: f32ToBf16, decode: bf16ToF32, exponentBits: 8, fractionBits: 7 },
  { name: 'f16', encode: f32ToF16, decode: f16ToF32, exponentBits: 5, fractionBits: 10 },
];

/** IEEE 754's definition of a binary format: sign, biased exponent, fraction. */
function defined(bits: number, { exponentBits, fractionBits }: Format): number {
  const sign = bits >>> 15 ? -1 : 1;
  const exponent = (bits >>> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

describe.each(formats)('$name', (format) => {
  const { encode, decode, exponentBits, fractionBits } = format;
  const infinity = (2 ** exponentBits - 1) << fractionBits;
  const wrong = (count: number, isRight: (bits: number) => boolean) =>
    Array.from({ length: count }, (_, bits) => bits).filter((bits) => !isRight(bits));

  it('decodes each of its 65536 values as the format is defined', () => {
    expect(wrong(65536, (bits) => Object.is(decode(bits), defined(bits, format)))).toEqual([]);
  });

  it('encodes what it decoded, and keeps a NaN a NaN', () => {
    expect(
      wrong(65536, (bits) => (Number.isNaN(decode(bits)) ? Number.isNaN(decode(encode(decode(bits)))) : encode(decode(bits)) === bits)),
    ).toEqual([]);
  });

  it('rounds to the nearest of two neighbours, half way to the even one, at every finite value', () => {
    const rounds = (bits: number) => {
      const [low, high] = [decode(bits), bits + 1 === infinity ? 2 * decode(bits) - decode(bits - 1) : decode(bits + 1)];
      const half = (low + high) / 2;
      // The neighbours of `half` in f32, which is what values are rounded to first.
      const step = 2 ** (Math.floor(Math.log2(half)) - 23);
      const even = bits % 2 === 0 ? bits : bits + 1;
      const right = (sign: number) =>
        encode((sign ? -1 : 1) * half) === sign + even &&
        encode((sign ? -1 : 1) * (half - step)) === sign + bits &&
        encode((sign ? -1 : 1) * (half + step)) === sign + bits + 1;
      return right(0) && right(0x8000);
    };
    // bf16's smallest values leave no room for a step in f32, whose exponent is theirs.
    const first = format.name === 'bf16' ? 2 ** fractionBits : 0;
    expect(wrong(infinity, (bits) => bits < first || rounds(bits))).toEqual([]);
  });

  it('takes what is too large for infinity', () => {
    expect([encode(1e39), encode(-1e39)]).toEqual([infinity, 0x8000 + infinity]);
  });
});
