import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat, expectSame } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** y = a + b, elementwise over equal shapes. */
export const addOp = defineOp<Record<never, number>>({
  name: 'add',
  attrs: [],
  infer([a, b]) {
    expectFloat('add', 'a', a!);
    expectSame('add', 'b', b!, a!);
    return [{ shape: a!.shape, dtype: a!.dtype }];
  },
  reference([a, b], _, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = a!.data[i]! + b!.data[i]!;
  },
  vjp({ grad, give }) {
    give(0, grad(0)!);
    give(1, grad(0)!);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 5), r.randn(3, 5)], attrs: {} },
    { inputs: [r.randn(1037), r.randn(1037)], attrs: {} },
  ],
});

export function add(a: Argument, b: Argument): Tensor {
  return apply(addOp, [a, b], {})[0]!;
}

/** a + b for sums of gradients: consumes both, and reuses the storage of `a` where nobody else holds it. */
export function addInto(a: Tensor, b: Tensor): Tensor {
  if (a.buffer.owners === 1) {
    launch(addOp, [a, b], [a], {});
    b.dispose();
    return a;
  }
  const sum = add(a, b).keep();
  a.dispose();
  b.dispose();
  return sum;
}
