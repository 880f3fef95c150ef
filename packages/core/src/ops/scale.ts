import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat } from './check.js';
import { defineOp } from './define-op.js';

/** y = alpha * x. */
export const scaleOp = defineOp<{ alpha: number }>({
  name: 'scale',
  attrs: ['alpha'],
  infer([x]) {
    expectFloat('scale', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], { alpha }, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = alpha * x!.data[i]!;
  },
  vjp({ grad, give, attrs }) {
    give(0, scale(grad(0)!, attrs.alpha));
  },
  samples: (r) => [
    { inputs: [r.randn(4, 7)], attrs: { alpha: 0.37 } },
    { inputs: [r.randn(1037)], attrs: { alpha: -2 } },
  ],
});

export function scale(x: Argument, alpha: number): Tensor {
  return apply(scaleOp, [x], { alpha })[0]!;
}
