import { type HostTensor, hostTensor } from '../tensor/host.js';
import { columns, expect, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { fp8Cast, padded } from './fp8-cast.js';
import { swigluBackward, swigluOp } from './swiglu.js';

interface SwigluAttrs extends Record<string, number> {
  calibrate: number;
  margin: number;
}

/** SwiGLU of h [T, 2F] in e4m3. Outputs: codes [T, F], 1 / scale, state. */
export const fp8Swiglu = defineOp<SwigluAttrs>({
  name: 'fp8_swiglu',
  attrs: ['calibrate', 'margin'],
  dtypes: ['bf16'],
  codeSteps: 1,
  infer([h]) {
    expect(columns(h!) % 2 === 0, 'fp8_swiglu', 'an even last axis, gate then up', h!);
    return [
      { shape: [rowsOf(h!), columns(h!) / 2], dtype: 'u8' },
      { shape: [1], dtype: 'f32' },
      { shape: [3], dtype: 'f32' },
    ];
  },
  reference([h], { calibrate, margin }, outputs) {
    const a = hostTensor([rowsOf(h!), columns(h!) / 2], 'f32');
    swigluOp.reference([h!], {}, [a]);
    fp8Cast.reference([a], { e5m2: 0, rows: 1, columns: 0, calibrate, margin }, outputs);
  },
  samples: (r) => [
    { inputs: [r.randn(7, 10)], attrs: { calibrate: 0, margin: 0 }, outputs: outputsOf(7, 5) },
    { inputs: [r.randn(131, 144)], attrs: { calibrate: 0, margin: 0 }, outputs: outputsOf(131, 72) },
  ],
});

/**
 * Inputs da [T, F], h [T, 2F]. Outputs: the gradient of h in e5m2, codes [T, 2F] and of the transpose [2F, T padded], 1 / scale, state;
 * and SwiGLU of h once more in e4m3, codes of the transpose [F, T padded], 1 / scale, state.
 */
export const fp8SwigluBackward = defineOp<SwigluAttrs>({
  name: 'fp8_swiglu_backward',
  attrs: ['calibrate', 'margin'],
  dtypes: ['bf16'],
  codeSteps: 1,
  infer([da, h]) {
    const [rows, size] = [rowsOf(da!), columns(da!)];
    expect(columns(h!) === 2 * size && rowsOf(h!) === rows, 'fp8_swiglu_backward', `h of ${rows} rows of ${2 * size}`, h!);
    return [
      { shape: [rows, 2 * size], dtype: 'u8' },
      { shape: [2 * size, padded(rows)], dtype: 'u8' },
      { shape: [1], dtype: 'f32' },
      { shape: [3], dtype: 'f32' },
      { shape: [size, padded(rows)], dtype: 'u8' },
      { shape: [1], dtype: 'f32' },
      { shape: [3], dtype: 'f32' },
    ];
  },
  reference([da, h], { calibrate, margin }, outputs) {
    const dh = hostTensor([rowsOf(h!), columns(h!)], 'f32');
    const a = hostTensor([rowsOf(da!), columns(da!)], 'f32');
    swigluBackward.reference([da!, h!], {}, [dh]);
    swigluOp.reference([h!], {}, [a]);
    fp8Cast.reference([dh], { e5m2: 1, rows: 1, columns: 1, calibrate, margin }, outputs.slice(0, 4));
    fp8Cast.reference([a], { e5m2: 0, rows: 0, columns: 1, calibrate, margin }, outputs.slice(4));
  },
  samples: (r) => [
    { inputs: [r.randn(7, 5), r.randn(7, 10)], attrs: { calibrate: 0, margin: 0 }, outputs: backwardOutputs(7, 5) },
    { inputs: [r.randn(160, 136), r.randn(160, 272)], attrs: { calibrate: 0, margin: 0 }, outputs: backwardOutputs(160, 136) },
  ],
});

const inverse = () => hostTensor([1], 'f32');
const state = (scale: number) => hostTensor([4], 'f32', [scale, 0, 0, 0]);
const outputsOf = (rows: number, size: number): HostTensor[] => [hostTensor([rows, size], 'u8'), inverse(), state(16)];
const backwardOutputs = (rows: number, size: number): HostTensor[] => [
  hostTensor([rows, 2 * size], 'u8'),
  hostTensor([2 * size, padded(rows)], 'u8'),
  inverse(),
  state(1024),
  hostTensor([size, padded(rows)], 'u8'),
  inverse(),
  state(16),
];
