import { hostTensor } from '../tensor/host.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';

export interface AdagradAttrs extends Record<string, number> {
  /** Its decay over steps included. */
  lr: number;
  eps: number;
  /** Times the weight, added to the gradient. */
  weightDecay: number;
  /** Added to the sum: what it begins with, at the first step; 0 after. */
  initial: number;
}

/**
 * One Adagrad step over a flat range (Duchi, Hazan and Singer, JMLR 12, 2011). Inputs grad [n], coefficient f32 [1]; outputs, all read
 * and written, master [n], sum of squared gradients [n], each f32 or bf16, and optionally the low-precision copy [n] of the master. The gradient
 * is multiplied by the coefficient first; a NaN coefficient (overflow) leaves everything untouched.
 */
export const adagradOp = defineOp<AdagradAttrs>({
  name: 'adagrad',
  attrs: ['lr', 'eps', 'weightDecay', 'initial'],
  infer([grad, coefficient]) {
    expect(coefficient!.dtype === 'f32', 'adagrad', 'an f32 coefficient', coefficient!);
    return [0, 1].map(() => ({ shape: grad!.shape, dtype: 'f32' as const }));
  },
  reference([grad, coefficient], { lr, eps, weightDecay, initial }, [master, sum, low]) {
    if (Number.isNaN(coefficient!.data[0]!)) return;
    for (let i = 0; i < grad!.data.length; i++) {
      const g = grad!.data[i]! * coefficient!.data[0]! + weightDecay * master!.data[i]!;
      sum!.data[i]! += g * g + initial;
      master!.data[i]! -= (lr * g) / (Math.sqrt(sum!.data[i]!) + eps);
      if (low) low.data[i] = master!.data[i]!;
    }
  },
  samples: (r) => {
    const attrs = { lr: 1e-2, eps: 1e-10, weightDecay: 0.1, initial: 0 };
    const inputs = (coefficient = 0.5) => [r.randn(1037), hostTensor([1], 'f32', [coefficient])];
    const state = () => [r.randn(1037), r.uniform(0, 1, 1037)];
    return [
      { inputs: inputs(), attrs, outputs: state() },
      { inputs: inputs(), attrs: { ...attrs, initial: 0.1 }, outputs: [...state(), hostTensor([1037], 'f16')], note: 'with an f16 copy' },
      { inputs: inputs(), attrs, outputs: state().map(({ data }) => hostTensor([1037], 'bf16', data)), note: 'all in bf16' },
      { inputs: inputs(Number.NaN), attrs, outputs: state(), note: 'overflow' },
    ];
  },
});
