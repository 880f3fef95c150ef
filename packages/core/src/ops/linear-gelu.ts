import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';
import { geluBackward, geluOp } from './gelu.js';
import { launch } from './launch.js';
import { linearDx, linearOp } from './linear.js';

// GPT-2's tanh form of GELU: the one that libraries of matrix products have in their epilogues.
const TANH = { tanh: 1 };

/**
 * Inputs x, w, bias; outputs a, h: h = x W' + b and a = gelu(h), by the tanh form. A kernel may take gelu of h before it is rounded
 * to its dtype.
 */
export const linearGelu = defineOp<{ layout: number }>({
  name: 'linear_gelu',
  attrs: ['layout'],
  infer(inputs, { layout }) {
    const [h] = linearOp.infer(inputs, { n: 1, hasBias: 1, layout });
    return [h!, h!];
  },
  reference(inputs, { layout }, [a, h]) {
    linearOp.reference(inputs, { n: 1, hasBias: 1, layout }, [h!]);
    geluOp.reference([h!], TANH, [a!]);
  },
  compose(inputs, { layout }, [a, h]) {
    launch(linearOp, inputs, [h!], { n: 1, hasBias: 1, layout });
    launch(geluOp, [h!], [a!], TANH);
  },
  samples: (r) => [
    { inputs: [r.randn(2, 5, 7), r.randn(3, 7), r.randn(3)], attrs: { layout: 0 } },
    { inputs: [r.randn(64, 96), r.randn(96, 200), r.randn(200)], attrs: { layout: 1 } },
    { inputs: [r.randn(40, 32), r.randn(48, 32), r.randn(48)], attrs: { layout: 0 } },
    { inputs: [r.randn(3, 32), r.randn(48, 32), r.randn(48)], attrs: { layout: 0 }, note: 'few rows' },
  ],
});

/**
 * The gradient at h of gelu(h) W', by the tanh form. Inputs dy, w, h; output dh = (dy W) gelu'(h): `linear_dx` and `gelu_backward`
 * without the gradient of the activation in between.
 */
export const linearDxGelu = defineOp<{ layout: number }>({
  name: 'linear_dx_gelu',
  attrs: ['layout'],
  infer([dy, w, h], { layout }) {
    const [da] = linearDx.infer([dy!, w!], { n: 1, layout });
    expect(da!.shape.join() === h!.shape.join(), 'linear_dx_gelu', `h of shape [${da!.shape.join(', ')}]`, h!);
    return [da!];
  },
  reference([dy, w, h], { layout }, [dh]) {
    const da = hostTensor(h!.shape, 'f32');
    linearDx.reference([dy!, w!], { n: 1, layout }, [da]);
    geluBackward.reference([da, h!], TANH, [dh!]);
  },
  compose([dy, w, h], { layout }, [dh]) {
    const da = empty(h!.device, h!.shape, h!.dtype);
    launch(linearDx, [dy!, w!], [da], { n: 1, layout });
    launch(geluBackward, [da, h!], [dh!], TANH);
    da.dispose();
  },
  samples: (r) => [
    { inputs: [r.randn(2, 5, 7), r.randn(7, 3), r.uniform(-4, 4, 2, 5, 3)], attrs: { layout: 0 } },
    { inputs: [r.randn(64, 96), r.randn(200, 96), r.uniform(-8, 8, 64, 200)], attrs: { layout: 1 } },
    { inputs: [r.randn(40, 32), r.randn(32, 48), r.uniform(-8, 8, 40, 48)], attrs: { layout: 0 } },
  ],
});
