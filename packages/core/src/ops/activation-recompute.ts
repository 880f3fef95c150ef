import { defineOp } from './define-op.js';
import { gegluBackward, gegluOp } from './geglu.js';
import { geluBackward, geluOp } from './gelu.js';
import { launch } from './launch.js';
import { swigluBackward, swigluOp } from './swiglu.js';

/**
 * Inputs dy, x; outputs dx, y: `swiglu_backward` together with `swiglu`, in one pass over x. For a backward pass that needs y
 * again and did not keep it.
 */
export const swigluBackwardRecompute = defineOp<Record<never, number>>({
  name: 'swiglu_backward_recompute',
  attrs: [],
  infer: ([dy, x]) => [
    { shape: x!.shape, dtype: x!.dtype },
    { shape: dy!.shape, dtype: dy!.dtype },
  ],
  reference([dy, x], attrs, [dx, y]) {
    swigluBackward.reference([dy!, x!], attrs, [dx!]);
    swigluOp.reference([x!], attrs, [y!]);
  },
  compose([dy, x], attrs, [dx, y]) {
    launch(swigluBackward, [dy!, x!], [dx!], attrs);
    launch(swigluOp, [x!], [y!], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(7, 101), r.uniform(-9, 9, 7, 202)], attrs: {} },
    { inputs: [r.randn(37, 64), r.uniform(-9, 9, 37, 128)], attrs: {} },
  ],
});

/** Inputs dy, x; outputs dx, y: `gelu_backward` together with `gelu`, likewise. */
export const geluBackwardRecompute = defineOp<{ tanh: number }>({
  name: 'gelu_backward_recompute',
  attrs: ['tanh'],
  infer: ([dy]) => [dy!, dy!].map(({ shape, dtype }) => ({ shape, dtype })),
  reference([dy, x], attrs, [dx, y]) {
    geluBackward.reference([dy!, x!], attrs, [dx!]);
    geluOp.reference([x!], attrs, [y!]);
  },
  compose([dy, x], attrs, [dx, y]) {
    launch(geluBackward, [dy!, x!], [dx!], attrs);
    launch(geluOp, [x!], [y!], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(1037), r.uniform(-8, 8, 1037)], attrs: { tanh: 1 } },
    { inputs: [r.randn(16, 200), r.uniform(-8, 8, 16, 200)], attrs: { tanh: 0 } },
  ],
});

/** Inputs dy, x; outputs dx, y: `geglu_backward` together with `geglu`, likewise. */
export const gegluBackwardRecompute = defineOp<{ tanh: number }>({
  name: 'geglu_backward_recompute',
  attrs: ['tanh'],
  infer: (inputs) => swigluBackwardRecompute.infer(inputs, {}),
  reference([dy, x], attrs, [dx, y]) {
    gegluBackward.reference([dy!, x!], attrs, [dx!]);
    gegluOp.reference([x!], attrs, [y!]);
  },
  compose([dy, x], attrs, [dx, y]) {
    launch(gegluBackward, [dy!, x!], [dx!], attrs);
    launch(gegluOp, [x!], [y!], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(7, 101), r.uniform(-9, 9, 7, 202)], attrs: { tanh: 1 } },
    { inputs: [r.randn(37, 64), r.uniform(-9, 9, 37, 128)], attrs: { tanh: 0 } },
  ],
});
