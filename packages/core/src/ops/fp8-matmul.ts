import { type HostTensor, hostTensor } from '../tensor/host.js';
import { columns, expect, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { decodeFp8, encodeFp8, type Fp8Format, formatOf } from './fp8-format.js';

interface MatmulAttrs extends Record<string, number> {
  aE5m2: number;
  bE5m2: number;
  /** Sums may keep fewer bits on the way, which is faster. */
  fast: number;
  accumulate: number;
}

/**
 * C = A B' / (scales) + bias, of codes a [M, K] and b [N, K]; then their 1 / scale, f32 [1] each, and a bias [N] if there is one. The
 * outputs are the rows of C one after another, written or added to.
 */
export const fp8Matmul = defineOp<MatmulAttrs>({
  name: 'fp8_matmul',
  attrs: ['aE5m2', 'bE5m2', 'fast', 'accumulate'],
  dtypes: ['bf16'],
  // Tensor cores line 8-bit products up at about 14 bits before they add them, which shows where the output is f32.
  tolerance: 2e-3,
  infer([a, b]) {
    expect(a!.dtype === 'u8' && b!.dtype === 'u8' && columns(a!) === columns(b!), 'fp8_matmul', `codes of ${columns(a!)} columns`, b!);
    return [{ shape: [rowsOf(a!), rowsOf(b!)], dtype: 'bf16' }];
  },
  reference([a, b, inverseA, inverseB, bias], { aE5m2, bE5m2, accumulate }, outputs) {
    const values = (codes: HostTensor, e5m2: number) => codes.data.map((code) => decodeFp8(code, formatOf(e5m2)));
    const [left, right] = [values(a!, aE5m2), values(b!, bE5m2)];
    const [n, k] = [rowsOf(b!), columns(a!)];
    const scale = inverseA!.data[0]! * inverseB!.data[0]!;
    let row = 0;
    for (const out of outputs) {
      for (let i = 0; i < out.data.length; i++) {
        const [l, r] = [(row + Math.floor(i / n)) * k, (i % n) * k];
        let sum = 0;
        for (let j = 0; j < k; j++) sum += left[l + j]! * right[r + j]!;
        out.data[i] = sum * scale + (bias ? bias.data[i % n]! : 0) + (accumulate ? out.data[i]! : 0);
      }
      row += out.data.length / n;
    }
  },
  samples: (r) => {
    const codes = (rows: number, cols: number, format: Fp8Format) =>
      hostTensor(
        [rows, cols],
        'u8',
        r.randn(rows, cols).data.map((x) => encodeFp8(32 * x, format)),
      );
    const inverse = (scale: number) => hostTensor([1], 'f32', [1 / scale]);
    const attrs = { aE5m2: 0, bE5m2: 0, fast: 0, accumulate: 0 };
    return [
      { inputs: [codes(5, 7, 'e4m3'), codes(3, 7, 'e4m3'), inverse(32), inverse(8)], attrs },
      { inputs: [codes(64, 96, 'e4m3'), codes(48, 96, 'e4m3'), inverse(32), inverse(32)], attrs },
      { inputs: [codes(33, 64, 'e5m2'), codes(80, 64, 'e4m3'), inverse(32), inverse(64)], attrs: { ...attrs, aE5m2: 1 } },
      { inputs: [codes(33, 64, 'e4m3'), codes(32, 64, 'e4m3'), inverse(32), inverse(64), r.randn(32)], attrs, note: 'bias' },
      {
        inputs: [codes(48, 128, 'e5m2'), codes(32, 128, 'e4m3'), inverse(32), inverse(32)],
        attrs: { ...attrs, aE5m2: 1, accumulate: 1 },
        outputs: [r.randn(32, 32), r.randn(16, 32)],
        note: 'two outputs, added to',
      },
    ];
  },
});
