import { hostTensor } from '../tensor/host.js';
import { expect, expectFloat } from './check.js';
import { defineOp } from './define-op.js';

/**
 * The momentum of one Muon step over a flat range (Jordan et al., https://kellerjordan.github.io/posts/muon): m = momentum m + (1 - momentum) g,
 * and the update u = m, or with `nesterov` u = momentum m + (1 - momentum) g, one step ahead. Inputs grad [n], coefficient f32 [1]; outputs
 * m [n], f32 or bf16, read and written, and u [n] in any float dtype. The gradient is multiplied by the coefficient first; a NaN
 * coefficient leaves the momentum untouched, and u is the momentum.
 */
export const muonMomentum = defineOp<{ momentum: number; nesterov: number }>({
  name: 'muon_momentum',
  attrs: ['momentum', 'nesterov'],
  infer([grad, coefficient]) {
    expect(coefficient!.dtype === 'f32', 'muon_momentum', 'an f32 coefficient', coefficient!);
    return [0, 1].map(() => ({ shape: grad!.shape, dtype: 'f32' as const }));
  },
  reference([grad, coefficient], { momentum, nesterov }, [m, u]) {
    const overflow = Number.isNaN(coefficient!.data[0]!);
    for (let i = 0; i < grad!.data.length; i++) {
      const g = grad!.data[i]! * coefficient!.data[0]!;
      if (!overflow) m!.data[i] = momentum * m!.data[i]! + (1 - momentum) * g;
      u!.data[i] = nesterov && !overflow ? momentum * m!.data[i]! + (1 - momentum) * g : m!.data[i]!;
    }
  },
  samples: (r) => {
    const attrs = { momentum: 0.95, nesterov: 1 };
    const inputs = (coefficient = 0.5) => [r.randn(1037), hostTensor([1], 'f32', [coefficient])];
    const outputs = () => [r.randn(1037), hostTensor([1037], 'f32')];
    const short = (data: ArrayLike<number> | undefined) => hostTensor([1037], 'bf16', data);
    return [
      { inputs: inputs(), attrs, outputs: outputs() },
      { inputs: inputs(), attrs: { ...attrs, nesterov: 0 }, outputs: outputs(), note: 'not Nesterov' },
      { inputs: inputs(), attrs, outputs: [r.randn(1037), short(undefined)], note: 'a bf16 update' },
      { inputs: inputs(), attrs, outputs: [short(r.randn(1037).data), short(undefined)], note: 'bf16 momentum' },
      { inputs: inputs(Number.NaN), attrs, outputs: outputs(), note: 'overflow' },
    ];
  },
});

/** y = x / (sqrt(squares) + eps), with squares f32 [1] the sum of x^2: x with a Frobenius norm of one. */
export const normalize = defineOp<{ eps: number }>({
  name: 'normalize',
  attrs: ['eps'],
  infer([x, squares]) {
    expectFloat('normalize', 'x', x!);
    expect(squares!.dtype === 'f32', 'normalize', 'f32 squares', squares!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x, squares], { eps }, [y]) {
    const norm = Math.sqrt(squares!.data[0]!) + eps;
    for (let i = 0; i < x!.data.length; i++) y!.data[i] = x!.data[i]! / norm;
  },
  samples: (r) => {
    const squares = (value: number) => hostTensor([1], 'f32', [value]);
    return [
      { inputs: [r.randn(7, 11), squares(77)], attrs: { eps: 1e-7 }, differentiable: [] },
      { inputs: [r.randn(1037), squares(0)], attrs: { eps: 0.5 }, differentiable: [], note: 'squares of zero' },
    ];
  },
});

/** y = alpha x + beta y in f32, rounded once. x and y have one shape and dtype. */
export const blend = defineOp<{ alpha: number; beta: number }>({
  name: 'blend',
  attrs: ['alpha', 'beta'],
  infer([x]) {
    expectFloat('blend', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], { alpha, beta }, [y]) {
    for (let i = 0; i < x!.data.length; i++) y!.data[i] = alpha * x!.data[i]! + beta * y!.data[i]!;
  },
  samples: (r) => [
    { inputs: [r.randn(5, 13)], attrs: { alpha: 2.0315, beta: -4.775 }, outputs: [r.randn(5, 13)] },
    { inputs: [r.randn(1037)], attrs: { alpha: 1, beta: 3.4445 }, outputs: [r.randn(1037)] },
  ],
});
