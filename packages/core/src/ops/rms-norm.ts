import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, expectSame, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { normBackward } from './norm-backward.js';
import { stored } from './stored.js';

/**
 * Root-mean-square normalisation over the last axis (Zhang and Sennrich, arXiv:1910.07467), optionally of x + residual.
 * Inputs x [..., C], w [C], (residual [..., C]); outputs y, stats f32 [rows, 1] = 1/rms, (h = x + residual). `offset` is added to w.
 */
export const rmsNormOp = defineOp<{ eps: number; offset: number }>({
  name: 'rms_norm',
  attrs: ['eps', 'offset'],
  infer([x, w, residual]) {
    expectFloat('rms_norm', 'x', x!);
    expect(w!.shape.length === 1 && w!.shape[0] === columns(x!), 'rms_norm', `w of shape [${columns(x!)}]`, w!);
    if (residual) expectSame('rms_norm', 'residual', residual, x!);
    const like = { shape: x!.shape, dtype: x!.dtype };
    const stats = { shape: [rowsOf(x!), 1], dtype: 'f32' as const };
    return residual ? [like, stats, like] : [like, stats];
  },
  reference([x, w, residual], { eps, offset }, [y, stats, h]) {
    const size = columns(x!);
    for (let row = 0; row < rowsOf(x!); row++) {
      const at = row * size;
      const values = Array.from({ length: size }, (_, i) =>
        residual ? stored(x!.data[at + i]! + residual.data[at + i]!, h!.dtype) : x!.data[at + i]!,
      );
      const rstd = 1 / Math.sqrt(values.reduce((a, v) => a + v * v, 0) / size + eps);
      stats!.data[row] = rstd;
      for (const [i, v] of values.entries()) {
        if (h) h.data[at + i] = v;
        y!.data[at + i] = v * rstd * (w!.data[i]! + offset);
      }
    }
  },
  saves: { inputs: [0, 1], outputs: [1, 2] },
  vjp({ attrs: { offset }, input, output, grad, wants, into, give, inputSpecs }) {
    const hasResidual = inputSpecs.length === 3;
    const w = into(1);
    const dx = normBackward(rmsNormBackward, { accumulateW: w.accumulate, offset }, [w.tensor], { hasResidual, input, output, grad });
    if (wants(0)) give(0, dx);
    if (hasResidual && wants(2)) give(2, dx);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 8), r.randn(8)], attrs: { eps: 1e-6, offset: 0 } },
    { inputs: [r.randn(2, 3, 8), r.randn(8), r.randn(2, 3, 8)], attrs: { eps: 1e-6, offset: 0 }, note: 'with residual' },
    { inputs: [r.randn(70, 131), r.randn(131), r.randn(70, 131)], attrs: { eps: 1e-6, offset: 0 }, differentiable: [] },
    { inputs: [r.randn(5, 8), r.randn(8), r.randn(5, 8)], attrs: { eps: 1e-6, offset: 1 }, note: 'weights less one' },
    { inputs: [r.randn(40, 256), r.randn(256)], attrs: { eps: 1e-6, offset: 1 }, differentiable: [], note: 'weights less one' },
  ],
});

/** Inputs dy, h, w, stats, (dh: gradient that reached h otherwise); outputs dx = RMS'(dy) + dh, dw. */
export const rmsNormBackward = defineOp<{ accumulateW: number; offset: number }>({
  name: 'rms_norm_backward',
  attrs: ['accumulateW', 'offset'],
  infer: ([dy, , w]) => [dy!, w!].map(({ shape, dtype }) => ({ shape, dtype })),
  reference([dy, h, w, stats, dh], { accumulateW, offset }, [dx, dw]) {
    const size = columns(dy!);
    if (!accumulateW) dw!.data.fill(0);
    for (let row = 0; row < rowsOf(dy!); row++) {
      const at = row * size;
      const rstd = stats!.data[row]!;
      let dot = 0;
      for (let i = 0; i < size; i++) {
        const xhat = h!.data[at + i]! * rstd;
        dot += dy!.data[at + i]! * (w!.data[i]! + offset) * xhat;
        dw!.data[i]! += dy!.data[at + i]! * xhat;
      }
      for (let i = 0; i < size; i++) {
        const xhat = h!.data[at + i]! * rstd;
        dx!.data[at + i] = rstd * (dy!.data[at + i]! * (w!.data[i]! + offset) - (xhat * dot) / size) + (dh?.data[at + i] ?? 0);
      }
    }
  },
  samples(r) {
    const [dy, h, w, stats, dh] = [r.randn(70, 131), r.randn(70, 131), r.randn(131), r.uniform(0.5, 1, 70, 1), r.randn(70, 131)];
    return [
      { inputs: [dy, h, w, stats], attrs: { accumulateW: 0, offset: 0 } },
      { inputs: [dy, h, w, stats, dh], attrs: { accumulateW: 0, offset: 1 }, note: 'weights less one' },
      { inputs: [dy, h, w, stats, dh], attrs: { accumulateW: 1, offset: 0 }, outputs: [r.randn(70, 131), r.randn(131)] },
    ];
  },
});

export interface RmsNormOptions {
  readonly eps?: number;
  /** Added to w; default 0. */
  readonly offset?: number;
}

/** Normalises x (or x + residual, then also returned as `sum`). */
export function rmsNorm(x: Argument, w: Argument, options?: RmsNormOptions & { residual?: undefined }): { y: Tensor };
export function rmsNorm(x: Argument, w: Argument, options: RmsNormOptions & { residual: Argument }): { y: Tensor; sum: Tensor };
export function rmsNorm(
  x: Argument,
  w: Argument,
  options: RmsNormOptions & { residual?: Argument | undefined } = {},
): { y: Tensor; sum?: Tensor } {
  const { eps = 1e-6, offset = 0, residual } = options;
  const [y, , sum] = apply(rmsNormOp, residual ? [x, w, residual] : [x, w], { eps, offset });
  return sum ? { y: y!, sum } : { y: y! };
}
