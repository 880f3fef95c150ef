import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf, withColumns } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** y = silu(gate) * up over x [..., 2F] = [gate | up] (Shazeer, "GLU variants improve transformer", arXiv:2002.05202). */
export const swigluOp = defineOp<Record<never, number>>({
  name: 'swiglu',
  attrs: [],
  infer([x]) {
    expectFloat('swiglu', 'x', x!);
    expect(columns(x!) % 2 === 0, 'swiglu', 'an even last axis, gate then up', x!);
    return [{ shape: withColumns(x!.shape, columns(x!) / 2), dtype: x!.dtype }];
  },
  reference([x], _, [y]) {
    const size = columns(y!);
    for (let row = 0; row < rowsOf(y!); row++) {
      for (let i = 0; i < size; i++) {
        const gate = x!.data[row * 2 * size + i]!;
        y!.data[row * size + i] = gate * sigmoid(gate) * x!.data[row * 2 * size + size + i]!;
      }
    }
  },
  saves: { inputs: [0] },
  vjp({ input, grad, into }) {
    launch(swigluBackward, [grad(0)!, input(0)], [into(0).tensor], {});
  },
  samples: (r) => [
    { inputs: [r.randn(3, 10)], attrs: {} },
    { inputs: [r.uniform(-9, 9, 7, 202)], attrs: {}, differentiable: [] },
  ],
});

export const swigluBackward = defineOp<Record<never, number>>({
  name: 'swiglu_backward',
  attrs: [],
  infer: ([, x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  reference([dy, x], _, [dx]) {
    const size = columns(dy!);
    for (let row = 0; row < rowsOf(dy!); row++) {
      for (let i = 0; i < size; i++) {
        const gate = x!.data[row * 2 * size + i]!;
        const up = x!.data[row * 2 * size + size + i]!;
        const g = dy!.data[row * size + i]!;
        const s = sigmoid(gate);
        dx!.data[row * 2 * size + i] = g * up * s * (1 + gate * (1 - s));
        dx!.data[row * 2 * size + size + i] = g * gate * s;
      }
    }
  },
  samples: (r) => [{ inputs: [r.randn(7, 101), r.uniform(-9, 9, 7, 202)], attrs: {} }],
});

export function swiglu(x: Argument): Tensor {
  return apply(swigluOp, [x], {})[0]!;
}
