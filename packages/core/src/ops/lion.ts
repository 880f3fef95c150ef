import { hostTensor } from '../tensor/host.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';

export interface LionAttrs extends Record<string, number> {
  lr: number;
  beta1: number;
  beta2: number;
  /** Share of a weight that decays per step, times lr. */
  weightDecay: number;
}

/**
 * One Lion step over a flat range (Chen et al., arXiv:2302.06675): every weight moves by lr against the sign of its blended momentum.
 * Inputs grad [n], coefficient f32 [1]; outputs, all read and written, master [n], momentum [n], each f32 or bf16, and optionally the low-precision
 * copy [n] of the master. The gradient is multiplied by the coefficient first; a NaN coefficient (overflow) leaves everything
 * untouched. The sign of 0 is 0, as in the paper: a weight that never had a gradient stays.
 */
export const lionOp = defineOp<LionAttrs>({
  name: 'lion',
  attrs: ['lr', 'beta1', 'beta2', 'weightDecay'],
  infer([grad, coefficient]) {
    expect(coefficient!.dtype === 'f32', 'lion', 'an f32 coefficient', coefficient!);
    return [0, 1].map(() => ({ shape: grad!.shape, dtype: 'f32' as const }));
  },
  reference([grad, coefficient], { lr, beta1, beta2, weightDecay }, [master, m, low]) {
    if (Number.isNaN(coefficient!.data[0]!)) return;
    for (let i = 0; i < grad!.data.length; i++) {
      const g = grad!.data[i]! * coefficient!.data[0]!;
      const update = Math.sign(beta1 * m!.data[i]! + (1 - beta1) * g);
      master!.data[i] = master!.data[i]! * (1 - lr * weightDecay) - lr * update;
      m!.data[i] = beta2 * m!.data[i]! + (1 - beta2) * g;
      if (low) low.data[i] = master!.data[i]!;
    }
  },
  samples: (r) => {
    const attrs = { lr: 1e-2, beta1: 0.9, beta2: 0.99, weightDecay: 0.1 };
    const inputs = (coefficient = 0.5) => [r.randn(1037), hostTensor([1], 'f32', [coefficient])];
    const state = () => [r.randn(1037), r.randn(1037)];
    const zeros = () => hostTensor([1037], 'f32');
    return [
      { inputs: inputs(), attrs, outputs: state() },
      { inputs: inputs(), attrs, outputs: [...state(), hostTensor([1037], 'bf16')], note: 'with a bf16 copy' },
      { inputs: inputs(), attrs, outputs: state().map(({ data }) => hostTensor([1037], 'bf16', data)), note: 'all in bf16' },
      { inputs: [zeros(), hostTensor([1], 'f32', [1])], attrs, outputs: [r.randn(1037), zeros()], note: 'no gradient' },
      { inputs: inputs(Number.NaN), attrs, outputs: state(), note: 'overflow' },
    ];
  },
});
