import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import { geluBackwardRecompute } from './activation-recompute.js';
import { columns, expect } from './check.js';
import { defineOp } from './define-op.js';
import { geluOp } from './gelu.js';
import { launch } from './launch.js';
import { columnSum, linearDx, linearOp } from './linear.js';

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
 * What a backward pass needs where a map's input was gelu(h), by the tanh form, and was not kept. Inputs dy, w, h; outputs
 * dh = (dy W) gelu'(h), a = gelu(h), and db, the sums of dh's columns, added to when accumulate: `linear_dx`,
 * `gelu_backward_recompute` and `column_sum`. A kernel may take the sums before dh is rounded to its dtype.
 */
export const linearGeluBackward = defineOp<{ layout: number; accumulate: number }>({
  name: 'linear_gelu_backward',
  attrs: ['layout', 'accumulate'],
  infer([dy, w, h], { layout }) {
    const [da] = linearDx.infer([dy!, w!], { n: 1, layout, columnOffset: 0 });
    expect(da!.shape.join() === h!.shape.join(), 'linear_gelu_backward', `h of shape [${da!.shape.join(', ')}]`, h!);
    return [da!, da!, { shape: [columns(h!)], dtype: dy!.dtype }];
  },
  reference([dy, w, h], { layout, accumulate }, [dh, a, db]) {
    const da = hostTensor(h!.shape, 'f32');
    linearDx.reference([dy!, w!], { n: 1, layout, columnOffset: 0 }, [da]);
    geluBackwardRecompute.reference([da, h!], TANH, [dh!, a!]);
    columnSum.reference([dh!], { n: 1, columnOffset: 0, accumulate }, [db!]);
  },
  compose([dy, w, h], { layout, accumulate }, [dh, a, db]) {
    const da = empty(h!.device, h!.shape, h!.dtype);
    launch(linearDx, [dy!, w!], [da], { n: 1, layout, columnOffset: 0 });
    launch(geluBackwardRecompute, [da, h!], [dh!, a!], TANH);
    da.dispose();
    launch(columnSum, [dh!], [db!], { n: 1, columnOffset: 0, accumulate });
  },
  samples: (r) => [
    { inputs: [r.randn(2, 5, 7), r.randn(7, 3), r.uniform(-4, 4, 2, 5, 3)], attrs: { layout: 0, accumulate: 0 } },
    {
      inputs: [r.randn(64, 96), r.randn(200, 96), r.uniform(-8, 8, 64, 200)],
      attrs: { layout: 1, accumulate: 1 },
      outputs: [r.randn(64, 200), r.randn(64, 200), r.randn(200)],
    },
    { inputs: [r.randn(40, 32), r.randn(32, 48), r.uniform(-8, 8, 40, 48)], attrs: { layout: 0, accumulate: 0 } },
    { inputs: [r.randn(150, 64), r.randn(264, 64), r.uniform(-8, 8, 150, 264)], attrs: { layout: 1, accumulate: 0 }, note: 'many rows' },
  ],
});
