import { hostTensor } from '../tensor/host.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';

// LAMB (You et al., arXiv:1904.00962) in the pieces between which ranks exchange norms: moments, then the update before it is scaled, then
// the trust ratio of each parameter. Applying it is plain gradient descent with the ratio as coefficient.

/**
 * The moments of one LAMB step over a flat range. Inputs grad [n], coefficient f32 [1]; outputs, both read and written and of one dtype,
 * f32 or bf16, first moment [n] and second moment [n]. The gradient is multiplied by the coefficient first; a NaN coefficient leaves
 * everything untouched.
 */
export const lambMoments = defineOp<{ beta1: number; beta2: number }>({
  name: 'lamb_moments',
  attrs: ['beta1', 'beta2'],
  infer([grad, coefficient]) {
    expect(coefficient!.dtype === 'f32', 'lamb_moments', 'an f32 coefficient', coefficient!);
    return [0, 1].map(() => ({ shape: grad!.shape, dtype: 'f32' as const }));
  },
  reference([grad, coefficient], { beta1, beta2 }, [m, v]) {
    if (Number.isNaN(coefficient!.data[0]!)) return;
    for (let i = 0; i < grad!.data.length; i++) {
      const g = grad!.data[i]! * coefficient!.data[0]!;
      m!.data[i] = beta1 * m!.data[i]! + (1 - beta1) * g;
      v!.data[i] = beta2 * v!.data[i]! + (1 - beta2) * g * g;
    }
  },
  samples: (r) => {
    const attrs = { beta1: 0.9, beta2: 0.99 };
    const inputs = (coefficient = 0.5) => [r.randn(1037), hostTensor([1], 'f32', [coefficient])];
    const states = () => [r.randn(1037), r.uniform(0, 1, 1037)];
    const short = () => states().map((state) => hostTensor([1037], 'bf16', state.data));
    return [
      { inputs: inputs(), attrs, outputs: states() },
      { inputs: inputs(), attrs, outputs: short(), note: 'bf16 moments' },
      { inputs: inputs(Number.NaN), attrs, outputs: states(), note: 'overflow' },
    ];
  },
});

export interface LambUpdateAttrs extends Record<string, number> {
  /** 1 - beta1^t and 1 - beta2^t, computed in double by the host; 1 without bias correction. */
  bias1: number;
  bias2: number;
  eps: number;
  /** 1: eps is added to the second moment, 0: to its root. */
  epsInsideRoot: number;
  weightDecay: number;
}

/** u f32 [n] = m / bias1 / (sqrt(v / bias2) + eps) + weightDecay p: where LAMB would move a weight [n] before the trust ratio. */
export const lambUpdate = defineOp<LambUpdateAttrs>({
  name: 'lamb_update',
  attrs: ['bias1', 'bias2', 'eps', 'epsInsideRoot', 'weightDecay'],
  dtypes: ['f32', 'bf16'],
  infer: ([p]) => [{ shape: p!.shape, dtype: 'f32' }],
  reference([p, m, v], { bias1, bias2, eps, epsInsideRoot, weightDecay }, [u]) {
    for (let i = 0; i < p!.data.length; i++) {
      const second = v!.data[i]! / bias2;
      const root = epsInsideRoot ? Math.sqrt(second + eps) : Math.sqrt(second) + eps;
      u!.data[i] = m!.data[i]! / bias1 / root + weightDecay * p!.data[i]!;
    }
  },
  samples: (r) => {
    const attrs = { bias1: 1 - 0.9 ** 3, bias2: 1 - 0.99 ** 3, eps: 1e-6, epsInsideRoot: 0, weightDecay: 0.1 };
    const inputs = () => [r.randn(1037), r.randn(1037), r.uniform(0.1, 1, 1037)];
    const [p, ...states] = inputs();
    return [
      { inputs: inputs(), attrs },
      { inputs: inputs(), attrs: { ...attrs, epsInsideRoot: 1, eps: 1e-2 }, note: 'eps inside the root' },
      { inputs: [p!, ...states.map((state) => hostTensor([1037], 'bf16', state.data))], attrs, note: 'bf16 moments' },
    ];
  },
});

export interface LambRatioAttrs extends Record<string, number> {
  minimum: number;
  maximum: number;
}

/**
 * The trust ratio of each of P parameters, f32 [P] = ||p|| / ||u|| between `minimum` and `maximum`, 1 where either norm is zero, NaN where the
 * coefficient is NaN. Inputs: sums f32 [ranks, P, 2] of p^2 and u^2 over the parts of a parameter that lie in the slice of each rank,
 * added rank by rank; coefficient f32 [1].
 */
export const lambRatio = defineOp<LambRatioAttrs>({
  name: 'lamb_ratio',
  attrs: ['minimum', 'maximum'],
  dtypes: ['f32'],
  infer([sums]) {
    expect(sums!.shape.length === 3 && sums!.shape[2] === 2, 'lamb_ratio', 'sums [ranks, parameters, 2]', sums!);
    return [{ shape: [sums!.shape[1]!], dtype: 'f32' }];
  },
  reference([sums, coefficient], { minimum, maximum }, [ratios]) {
    const parameters = ratios!.data.length;
    for (let i = 0; i < parameters; i++) {
      let [p, u] = [0, 0];
      for (let at = 2 * i; at < sums!.data.length; at += 2 * parameters) {
        p += sums!.data[at]!;
        u += sums!.data[at + 1]!;
      }
      const ratio = p > 0 && u > 0 ? Math.min(Math.max(Math.sqrt(p) / Math.sqrt(u), minimum), maximum) : 1;
      ratios!.data[i] = Number.isNaN(coefficient!.data[0]!) ? Number.NaN : ratio;
    }
  },
  samples: (r) => {
    const sums = r.uniform(0, 2, 3, 5, 2);
    // Two parameters without weights or without an update, two beyond the bounds.
    for (let rank = 0; rank < 3; rank++) {
      sums.data[rank * 10] = 0;
      sums.data[rank * 10 + 3] = 0;
      sums.data[rank * 10 + 4] = 1000;
      sums.data[rank * 10 + 7] = 1000;
    }
    const attrs = { minimum: 0.1, maximum: 10 };
    return [
      { inputs: [sums, hostTensor([1], 'f32', [0.5])], attrs },
      { inputs: [r.uniform(1, 2, 1, 300, 2), hostTensor([1], 'f32', [1])], attrs, note: 'one rank' },
      { inputs: [r.uniform(1, 2, 4, 3, 2), hostTensor([1], 'f32', [Number.NaN])], attrs, note: 'overflow' },
    ];
  },
});
