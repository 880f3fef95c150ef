import { type HostTensor, hostTensor } from '../tensor/host.js';
import { numelOf } from '../tensor/tensor.js';
import { expect, expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import {
  codesOf,
  INT8_STEP,
  NF4_BOUNDARIES,
  NF4_VALUES,
  QUANTIZED_BLOCK,
  QUANTIZED_FORMATS,
  type QuantizedFormat,
  scalesOf,
} from './quantized-format.js';
import type { Random } from './random-samples.js';

/** `format`: an index into QUANTIZED_FORMATS. */
type FormatAttrs = { format: number };

/**
 * Codes and scales of x, any shape, taken as one row of n elements in blocks of 64: outputs codes (i8 [n], or u8 [ceil(n / 2)] for nf4) and
 * scales f32 [ceil(n / 64)], the largest magnitudes. All arithmetic is in f32 and rounded to nearest, so that every backend gives the same
 * codes. Values of `dequantize` in f32 have the codes and scales that they came from.
 */
export const quantize = defineOp<FormatAttrs>({
  name: 'quantize',
  attrs: ['format'],
  infer([x], { format }) {
    expectFloat('quantize', 'x', x!);
    const n = numelOf(x!.shape);
    const name = QUANTIZED_FORMATS[format]!;
    return [
      { shape: [codesOf(name, n)], dtype: name === 'int8' ? 'i8' : 'u8' },
      { shape: [scalesOf(n)], dtype: 'f32' },
    ];
  },
  reference([x], { format }, [codes, scales]) {
    const code = QUANTIZED_FORMATS[format] === 'int8' ? int8Code : nf4Code;
    const packed = QUANTIZED_FORMATS[format] === 'nf4';
    const n = x!.data.length;
    for (let block = 0; block * QUANTIZED_BLOCK < n; block++) {
      const end = Math.min(n, (block + 1) * QUANTIZED_BLOCK);
      let largest = 0;
      for (let i = block * QUANTIZED_BLOCK; i < end; i++) largest = Math.max(largest, Math.abs(x!.data[i]!));
      scales!.data[block] = largest;
      for (let i = block * QUANTIZED_BLOCK; i < end; i++) {
        const value = code(largest === 0 ? 0 : Math.fround(x!.data[i]! / largest));
        if (!packed) codes!.data[i] = value;
        else if (i % 2 === 0) codes!.data[i / 2] = value * 16 + (i + 1 < n ? 0 : nf4Code(0));
        else codes!.data[(i - 1) / 2]! += value;
      }
    }
  },
  samples: (r) =>
    [0, 1].flatMap((format) => [
      { inputs: [r.randn(5, 128)], attrs: { format }, differentiable: [] },
      { inputs: [r.randn(3 * 64 + 17)], attrs: { format }, differentiable: [], note: 'a short last block' },
      { inputs: [hostTensor([130], 'f32', [...r.randn(64).data, ...new Array(66).fill(0)])], attrs: { format }, note: 'zeros' },
      { inputs: [r.uniform(-1e-3, 1e3, 40, 100)], attrs: { format }, differentiable: [], note: 'large ones among small' },
    ]),
});

/** What codes and scales of n elements stand for, rounded to the dtype of y, which has n elements in any shape. */
export const dequantize = defineOp<FormatAttrs>({
  name: 'dequantize',
  attrs: ['format'],
  // The output says how many there are; without one, as many as there are codes.
  infer([codes, scales], { format }) {
    const n = codes!.shape[0]! * (QUANTIZED_FORMATS[format] === 'nf4' ? 2 : 1);
    expect(scales!.shape[0] === scalesOf(n), 'dequantize', `${scalesOf(n)} scales for codes of ${n} elements`, scales!);
    return [{ shape: [n], dtype: 'f32' }];
  },
  reference([codes, scales], { format }, [y]) {
    const { data } = codes!;
    const value =
      QUANTIZED_FORMATS[format] === 'int8'
        ? (i: number) => Math.fround(data[i]! * INT8_STEP)
        : (i: number) => NF4_VALUES[i % 2 === 0 ? data[i / 2]! >> 4 : data[(i - 1) / 2]! & 15]!;
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = Math.fround(value(i) * scales!.data[Math.floor(i / QUANTIZED_BLOCK)]!);
  },
  samples: (r) =>
    QUANTIZED_FORMATS.flatMap((name, format) => [
      { inputs: quantized(r, name, 640), attrs: { format }, outputs: [hostTensor([5, 128], 'f32')], differentiable: [] },
      { inputs: quantized(r, name, 209), attrs: { format }, outputs: [hostTensor([209], 'f32')], note: 'a short last block' },
      { inputs: quantized(r, name, 4096), attrs: { format }, outputs: [hostTensor([64, 64], 'bf16')], note: 'to bf16' },
      { inputs: quantized(r, name, 130), attrs: { format }, outputs: [hostTensor([130], 'f16')], note: 'to f16' },
    ]),
});

/** Any codes, and scales as of weights. */
function quantized(r: Random, format: QuantizedFormat, n: number): HostTensor[] {
  const codes = r.ints(format === 'int8' ? 255 : 256, codesOf(format, n));
  if (format === 'int8') for (let i = 0; i < codes.data.length; i++) codes.data[i]! -= 127;
  return [{ ...codes, dtype: format === 'int8' ? 'i8' : 'u8' }, r.uniform(0.01, 2, scalesOf(n))];
}

function int8Code(x: number): number {
  return roundToEven(Math.fround(x * 127));
}

function nf4Code(x: number): number {
  let code = 0;
  while (code < 15 && x > NF4_BOUNDARIES[code]!) code++;
  return code;
}

function roundToEven(x: number): number {
  const floor = Math.floor(x);
  const above = x - floor;
  return above > 0.5 || (above === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}
