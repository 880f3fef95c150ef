import { expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** y = max(x, 0). */
export const reluOp = defineOp<Record<never, number>>({
  name: 'relu',
  attrs: [],
  infer([x]) {
    expectFloat('relu', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], _, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = Math.max(x!.data[i]!, 0);
  },
  saves: { inputs: [0] },
  vjp({ input, grad, into }) {
    launch(reluBackward, [grad(0)!, input(0)], [into(0).tensor], {});
  },
  samples: (r) => [
    { inputs: [r.randn(3, 11)], attrs: {} },
    { inputs: [r.randn(1037)], attrs: {}, differentiable: [] },
  ],
});

/** Inputs dy, x; output dx: dy where x is positive. */
export const reluBackward = defineOp<Record<never, number>>({
  name: 'relu_backward',
  attrs: [],
  infer: ([dy]) => [{ shape: dy!.shape, dtype: dy!.dtype }],
  reference([dy, x], _, [dx]) {
    for (let i = 0; i < dx!.data.length; i++) dx!.data[i] = x!.data[i]! > 0 ? dy!.data[i]! : 0;
  },
  samples: (r) => [{ inputs: [r.randn(1037), r.randn(1037)], attrs: {} }],
});
