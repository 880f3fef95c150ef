import { defineOp } from './define-op.js';
import { geluOp } from './gelu.js';
import { launch } from './launch.js';
import { linearOp } from './linear.js';

/**
 * Inputs x, w, bias; outputs a, h: h = x W' + b and a = gelu(h) of the h that is stored, rounded to the dtype, so that a backward
 * pass that computes a from h gets the same.
 */
export const linearGelu = defineOp<{ layout: number; tanh: number }>({
  name: 'linear_gelu',
  attrs: ['layout', 'tanh'],
  infer(inputs, { layout }) {
    const [h] = linearOp.infer(inputs, { n: 1, hasBias: 1, layout });
    return [h!, h!];
  },
  reference(inputs, { layout, tanh }, [a, h]) {
    linearOp.reference(inputs, { n: 1, hasBias: 1, layout }, [h!]);
    geluOp.reference([h!], { tanh }, [a!]);
  },
  compose(inputs, { layout, tanh }, [a, h]) {
    launch(linearOp, inputs, [h!], { n: 1, hasBias: 1, layout });
    launch(geluOp, [h!], [a!], { tanh });
  },
  samples: (r) => [
    { inputs: [r.randn(2, 5, 7), r.randn(3, 7), r.randn(3)], attrs: { layout: 0, tanh: 1 } },
    { inputs: [r.randn(64, 96), r.randn(96, 200), r.randn(200)], attrs: { layout: 1, tanh: 1 } },
    { inputs: [r.randn(40, 32), r.randn(48, 32), r.randn(48)], attrs: { layout: 0, tanh: 0 } },
  ],
});
