import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** y = exp(x) / sum exp(x) over the last axis. */
export const softmaxOp = defineOp<Record<never, number>>({
  name: 'softmax',
  attrs: [],
  infer([x]) {
    expectFloat('softmax', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], _, [y]) {
    const size = columns(x!);
    for (let row = 0; row < rowsOf(x!); row++) {
      const values = x!.data.subarray(row * size, (row + 1) * size);
      const max = values.reduce((a, v) => Math.max(a, v), Number.NEGATIVE_INFINITY);
      const exps = values.map((v) => Math.exp(v - max));
      const sum = exps.reduce((a, v) => a + v, 0);
      for (let i = 0; i < size; i++) y!.data[row * size + i] = exps[i]! / sum;
    }
  },
  saves: { outputs: [0] },
  vjp({ output, grad, into }) {
    launch(softmaxBackward, [grad(0)!, output(0)], [into(0).tensor], {});
  },
  samples: (r) => [
    { inputs: [r.randn(3, 8)], attrs: {} },
    { inputs: [r.uniform(-30, 30, 5, 1037)], attrs: {}, differentiable: [] },
  ],
});

export const softmaxBackward = defineOp<Record<never, number>>({
  name: 'softmax_backward',
  attrs: [],
  infer: ([dy]) => [{ shape: dy!.shape, dtype: dy!.dtype }],
  reference([dy, y], _, [dx]) {
    const size = columns(dy!);
    for (let row = 0; row < rowsOf(dy!); row++) {
      let dot = 0;
      for (let i = 0; i < size; i++) dot += dy!.data[row * size + i]! * y!.data[row * size + i]!;
      for (let i = 0; i < size; i++) dx!.data[row * size + i] = y!.data[row * size + i]! * (dy!.data[row * size + i]! - dot);
    }
  },
  samples: (r) => [{ inputs: [r.randn(5, 131), r.uniform(0, 0.02, 5, 131)], attrs: {} }],
});

export function softmax(x: Argument): Tensor {
  return apply(softmaxOp, [x], {})[0]!;
}
