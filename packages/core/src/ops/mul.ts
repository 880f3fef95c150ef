import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat, expectSame } from './check.js';
import { defineOp } from './define-op.js';

/** y = a * b, elementwise over equal shapes. */
export const mulOp = defineOp<Record<never, number>>({
  name: 'mul',
  attrs: [],
  infer([a, b]) {
    expectFloat('mul', 'a', a!);
    expectSame('mul', 'b', b!, a!);
    return [{ shape: a!.shape, dtype: a!.dtype }];
  },
  reference([a, b], _, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = a!.data[i]! * b!.data[i]!;
  },
  saves: { inputs: [0, 1] },
  vjp({ grad, give, input, wants }) {
    if (wants(0)) give(0, mul(grad(0)!, input(1)));
    if (wants(1)) give(1, mul(grad(0)!, input(0)));
  },
  samples: (r) => [
    { inputs: [r.randn(3, 5), r.randn(3, 5)], attrs: {} },
    { inputs: [r.randn(1037), r.randn(1037)], attrs: {} },
  ],
});

export function mul(a: Argument, b: Argument): Tensor {
  return apply(mulOp, [a, b], {})[0]!;
}
