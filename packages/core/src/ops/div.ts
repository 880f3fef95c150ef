import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat, expectSame } from './check.js';
import { defineOp } from './define-op.js';
import { mul } from './mul.js';
import { scale } from './scale.js';

/** y = a / b, elementwise over equal shapes. */
export const divOp = defineOp<Record<never, number>>({
  name: 'div',
  attrs: [],
  infer([a, b]) {
    expectFloat('div', 'a', a!);
    expectSame('div', 'b', b!, a!);
    return [{ shape: a!.shape, dtype: a!.dtype }];
  },
  reference([a, b], _, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = a!.data[i]! / b!.data[i]!;
  },
  saves: { inputs: [1], outputs: [0] },
  vjp({ grad, give, input, output, wants }) {
    const da = div(grad(0)!, input(1));
    if (wants(1)) give(1, scale(mul(da, output(0)), -1));
    if (wants(0)) give(0, da);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 5), r.uniform(0.5, 2, 3, 5)], attrs: {} },
    { inputs: [r.randn(1037), r.uniform(-3, -1, 1037)], attrs: {} },
  ],
});

export function div(a: Argument, b: Argument): Tensor {
  return apply(divOp, [a, b], {})[0]!;
}
