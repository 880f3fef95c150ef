import { type HostTensor, hostTensor } from '../tensor/host.js';
import { columns, expect, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { encodeFp8, formatOf, fp8Scale } from './fp8-format.js';

interface CastAttrs extends Record<string, number> {
  e5m2: number;
  /** Whether codes are wanted as the values lie, and transposed. */
  rows: number;
  columns: number;
  /** Measure first, and set the scale by that: where there is no history yet. */
  calibrate: number;
  margin: number;
}

/** Sums run over whole vectors of codes: transposed matrices have zeros up to here. */
export const padded = (rows: number): number => Math.ceil(rows / 16) * 16;

/**
 * Matrices [R_i, C], one under the other, in 8 bits. Outputs: codes [R, C] and codes of the transpose [C, R padded], as `rows` and
 * `columns` say; 1 / scale, f32 [1]; the tensor's state, f32 [..., 2 + history], whose scale is applied and whose largest magnitude
 * is raised. See {@link fp8Advance} for the state.
 */
export const fp8Cast = defineOp<CastAttrs>({
  name: 'fp8_cast',
  attrs: ['e5m2', 'rows', 'columns', 'calibrate', 'margin'],
  dtypes: ['bf16'],
  infer(inputs, attrs) {
    const cols = columns(inputs[0]!);
    let total = 0;
    for (const x of inputs) {
      expect(columns(x) === cols, 'fp8_cast', `matrices of ${cols} columns`, x);
      total += rowsOf(x);
    }
    return [
      ...(attrs.rows ? [{ shape: [total, cols], dtype: 'u8' as const }] : []),
      ...(attrs.columns ? [{ shape: [cols, padded(total)], dtype: 'u8' as const }] : []),
      { shape: [1], dtype: 'f32' },
      { shape: [3], dtype: 'f32' },
    ];
  },
  reference(inputs, { e5m2, rows, columns: transposed, calibrate, margin }, outputs) {
    const format = formatOf(e5m2);
    const [inverse, state] = outputs.slice(-2) as [HostTensor, HostTensor];
    for (const x of inputs) raise(state, x.data);
    if (calibrate) state.data[0] = fp8Scale(state.data[1]!, format, margin, state.data[0]!);
    inverse.data[0] = 1 / state.data[0]!;
    const cols = columns(inputs[0]!);
    const flat = rows ? outputs[0]!.data : undefined;
    const turned = transposed ? outputs[rows]! : undefined;
    turned?.data.fill(0);
    let at = 0;
    for (const x of inputs) {
      for (const value of x.data) {
        const code = encodeFp8(value * state.data[0]!, format);
        if (flat) flat[at] = code;
        if (turned) turned.data[(at % cols) * columns(turned) + Math.floor(at / cols)] = code;
        at++;
      }
    }
  },
  samples: (r) => {
    const attrs = { e5m2: 0, rows: 1, columns: 1, calibrate: 0, margin: 0 };
    const outs = (rows: number, cols: number, scale: number) => [
      hostTensor([rows, cols], 'u8'),
      hostTensor([cols, padded(rows)], 'u8'),
      hostTensor([1], 'f32'),
      hostTensor([5], 'f32', [scale, 0.5, 0, 0, 0]),
    ];
    return [
      { inputs: [r.randn(7, 5)], attrs, outputs: outs(7, 5, 64) },
      { inputs: [r.randn(131, 40)], attrs: { ...attrs, e5m2: 1, calibrate: 1, margin: 1 }, outputs: outs(131, 40, 1) },
      { inputs: [r.randn(256, 272)], attrs, outputs: outs(256, 272, 0.5), note: 'whole vectors' },
      { inputs: [r.randn(48, 64), r.randn(32, 64), r.randn(16, 64)], attrs, outputs: outs(96, 64, 128), note: 'one under the other' },
      { inputs: [r.randn(9, 33), r.randn(4, 33)], attrs: { ...attrs, calibrate: 1 }, outputs: outs(13, 33, 1) },
    ];
  },
});

/** Notes the largest magnitude; a NaN is not one. */
export function raise(state: HostTensor, values: Iterable<number>): void {
  for (const value of values) {
    const magnitude = Math.abs(value);
    if (magnitude > state.data[1]!) state.data[1] = Math.fround(magnitude);
  }
}
