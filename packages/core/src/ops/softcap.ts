import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** y = cap tanh(x / cap): nearly x where that is small beside cap, and never beyond it (Gemma 2, arXiv:2408.00118). */
export const softcapOp = defineOp<{ cap: number }>({
  name: 'softcap',
  attrs: ['cap'],
  infer([x]) {
    expectFloat('softcap', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], { cap }, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = cap * Math.tanh(x!.data[i]! / cap);
  },
  saves: { inputs: [0] },
  vjp({ attrs, input, grad, into }) {
    launch(softcapBackward, [grad(0)!, input(0)], [into(0).tensor], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 11)], attrs: { cap: 1.5 } },
    { inputs: [r.uniform(-80, 80, 1037)], attrs: { cap: 30 }, differentiable: [] },
    { inputs: [r.uniform(-1e-2, 1e-2, 300)], attrs: { cap: 30 }, differentiable: [] },
  ],
});

/** Inputs dy, x; output dx. */
export const softcapBackward = defineOp<{ cap: number }>({
  name: 'softcap_backward',
  attrs: ['cap'],
  infer: ([dy]) => [{ shape: dy!.shape, dtype: dy!.dtype }],
  reference([dy, x], { cap }, [dx]) {
    for (let i = 0; i < dx!.data.length; i++) dx!.data[i] = dy!.data[i]! * (1 - Math.tanh(x!.data[i]! / cap) ** 2);
  },
  samples: (r) => [{ inputs: [r.randn(1037), r.uniform(-60, 60, 1037)], attrs: { cap: 30 } }],
});

export function softcap(x: Argument, cap: number): Tensor {
  return apply(softcapOp, [x], { cap })[0]!;
}
