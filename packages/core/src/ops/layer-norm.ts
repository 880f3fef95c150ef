import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, expectSame, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { normBackward } from './norm-backward.js';
import { stored } from './stored.js';

/**
 * Layer normalisation over the last axis (Ba et al., arXiv:1607.06450), optionally of x + residual.
 * Inputs x [..., C], w [C], b [C], (residual [..., C]); outputs y, stats f32 [rows, 2] = (mean, 1/sd), (h = x + residual).
 */
export const layerNormOp = defineOp<{ eps: number }>({
  name: 'layer_norm',
  attrs: ['eps'],
  infer([x, w, b, residual]) {
    expectFloat('layer_norm', 'x', x!);
    for (const [name, p] of [
      ['w', w!],
      ['b', b!],
    ] as const) {
      expect(p.shape.length === 1 && p.shape[0] === columns(x!), 'layer_norm', `${name} of shape [${columns(x!)}]`, p);
    }
    if (residual) expectSame('layer_norm', 'residual', residual, x!);
    const like = { shape: x!.shape, dtype: x!.dtype };
    const stats = { shape: [rowsOf(x!), 2], dtype: 'f32' as const };
    return residual ? [like, stats, like] : [like, stats];
  },
  reference([x, w, b, residual], { eps }, [y, stats, h]) {
    const size = columns(x!);
    for (let row = 0; row < rowsOf(x!); row++) {
      const at = row * size;
      const values = Array.from({ length: size }, (_, i) =>
        residual ? stored(x!.data[at + i]! + residual.data[at + i]!, h!.dtype) : x!.data[at + i]!,
      );
      const mean = values.reduce((a, v) => a + v, 0) / size;
      const rstd = 1 / Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / size + eps);
      stats!.data[row * 2] = mean;
      stats!.data[row * 2 + 1] = rstd;
      for (const [i, v] of values.entries()) {
        if (h) h.data[at + i] = v;
        y!.data[at + i] = (v - mean) * rstd * w!.data[i]! + b!.data[i]!;
      }
    }
  },
  saves: { inputs: [0, 1], outputs: [1, 2] },
  vjp({ input, output, grad, wants, into, give, inputSpecs }) {
    const hasResidual = inputSpecs.length === 4;
    const [w, b] = [into(1), into(2)];
    const attrs = { accumulateW: w.accumulate, accumulateB: b.accumulate };
    const dx = normBackward(layerNormBackward, attrs, [w.tensor, b.tensor], { hasResidual, input, output, grad });
    if (wants(0)) give(0, dx);
    if (hasResidual && wants(3)) give(3, dx);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 8), r.randn(8), r.randn(8)], attrs: { eps: 1e-5 } },
    { inputs: [r.randn(2, 3, 8), r.randn(8), r.randn(8), r.randn(2, 3, 8)], attrs: { eps: 1e-5 }, note: 'with residual' },
    { inputs: [r.randn(70, 131), r.randn(131), r.randn(131), r.randn(70, 131)], attrs: { eps: 1e-6 }, differentiable: [] },
  ],
});

/** Inputs dy, h, w, stats, (dh: gradient that reached h otherwise); outputs dx = LN'(dy) + dh, dw, db. */
export const layerNormBackward = defineOp<{ accumulateW: number; accumulateB: number }>({
  name: 'layer_norm_backward',
  attrs: ['accumulateW', 'accumulateB'],
  infer: ([dy, , w]) => [dy!, w!, w!].map(({ shape, dtype }) => ({ shape, dtype })),
  reference([dy, h, w, stats, dh], { accumulateW, accumulateB }, [dx, dw, db]) {
    const size = columns(dy!);
    if (!accumulateW) dw!.data.fill(0);
    if (!accumulateB) db!.data.fill(0);
    for (let row = 0; row < rowsOf(dy!); row++) {
      const at = row * size;
      const mean = stats!.data[row * 2]!;
      const rstd = stats!.data[row * 2 + 1]!;
      let sum = 0;
      let dot = 0;
      for (let i = 0; i < size; i++) {
        const xhat = (h!.data[at + i]! - mean) * rstd;
        const g = dy!.data[at + i]! * w!.data[i]!;
        sum += g;
        dot += g * xhat;
        dw!.data[i]! += dy!.data[at + i]! * xhat;
        db!.data[i]! += dy!.data[at + i]!;
      }
      for (let i = 0; i < size; i++) {
        const xhat = (h!.data[at + i]! - mean) * rstd;
        const g = dy!.data[at + i]! * w!.data[i]!;
        dx!.data[at + i] = rstd * (g - sum / size - (xhat * dot) / size) + (dh?.data[at + i] ?? 0);
      }
    }
  },
  samples(r) {
    const [dy, h, w, stats, dh] = [r.randn(70, 131), r.randn(70, 131), r.randn(131), r.uniform(0.5, 1, 70, 2), r.randn(70, 131)];
    return [
      { inputs: [dy, h, w, stats], attrs: { accumulateW: 0, accumulateB: 0 } },
      { inputs: [dy, h, w, stats, dh], attrs: { accumulateW: 1, accumulateB: 1 }, outputs: [r.randn(70, 131), r.randn(131), r.randn(131)] },
    ];
  },
});

/** Normalises x (or x + residual, then also returned as `sum`). */
export function layerNorm(x: Argument, w: Argument, b: Argument, options?: { eps?: number; residual?: undefined }): { y: Tensor };
export function layerNorm(x: Argument, w: Argument, b: Argument, options: { eps?: number; residual: Argument }): { y: Tensor; sum: Tensor };
export function layerNorm(
  x: Argument,
  w: Argument,
  b: Argument,
  options: { eps?: number; residual?: Argument | undefined } = {},
): { y: Tensor; sum?: Tensor } {
  const { eps = 1e-5, residual } = options;
  const [y, , sum] = apply(layerNormOp, residual ? [x, w, b, residual] : [x, w, b], { eps });
  return sum ? { y: y!, sum } : { y: y! };
}
