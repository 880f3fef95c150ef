import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);

/** Gaussian error linear unit (Hendrycks and Gimpel, arXiv:1606.08415): exact by erf, or GPT-2's approximation by tanh. */
export const geluOp = defineOp<{ tanh: number }>({
  name: 'gelu',
  attrs: ['tanh'],
  infer([x]) {
    expectFloat('gelu', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], { tanh }, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = x!.data[i]! * gate(x!.data[i]!, tanh);
  },
  saves: { inputs: [0] },
  vjp({ attrs, input, grad, into }) {
    launch(geluBackward, [grad(0)!, input(0)], [into(0).tensor], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 11)], attrs: { tanh: 1 } },
    { inputs: [r.randn(3, 11)], attrs: { tanh: 0 } },
    { inputs: [r.uniform(-12, 12, 1037)], attrs: { tanh: 1 }, differentiable: [] },
    { inputs: [r.uniform(-12, 12, 1037)], attrs: { tanh: 0 }, differentiable: [] },
  ],
});

export const geluBackward = defineOp<{ tanh: number }>({
  name: 'gelu_backward',
  attrs: ['tanh'],
  infer: ([dy]) => [{ shape: dy!.shape, dtype: dy!.dtype }],
  reference([dy, x], { tanh }, [dx]) {
    for (let i = 0; i < dx!.data.length; i++) dx!.data[i] = dy!.data[i]! * derivative(x!.data[i]!, tanh);
  },
  samples: (r) => [
    { inputs: [r.randn(1037), r.uniform(-8, 8, 1037)], attrs: { tanh: 1 } },
    { inputs: [r.randn(1037), r.uniform(-8, 8, 1037)], attrs: { tanh: 0 } },
  ],
});

export function gelu(x: Argument, approximation: 'tanh' | 'none' = 'tanh'): Tensor {
  return apply(geluOp, [x], { tanh: Number(approximation === 'tanh') })[0]!;
}

/** The factor of x: (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, or the normal distribution function. */
function gate(x: number, tanh: number): number {
  return tanh ? 0.5 * (1 + Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x ** 3))) : 0.5 * erfc(-x / Math.SQRT2);
}

function derivative(x: number, tanh: number): number {
  if (!tanh) return gate(x, 0) + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
  const t = Math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x ** 3));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x * x);
}

/** Complementary error function to double precision: Taylor series for small |x|, a continued fraction beyond. */
function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum) + 1e-300; n++) {
      term *= -(x * x) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  // x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ...))), from the inside out.
  let fraction = x;
  for (let n = 60; n >= 1; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}
