import { apply } from '../autograd/apply.js';
import { uniforms } from '../random/philox.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import { type DropoutAttrs, dropoutKey } from './dropout.js';
import { launch } from './launch.js';

/** y = x (1 + p (2u - 1)) with u uniform in [0, 1) for each element: noise in proportion. It is drawn again in backward, not saved. */
export const jitterOp = defineOp<DropoutAttrs>({
  name: 'jitter',
  attrs: ['p', 'seedLow', 'seedHigh', 'step', 'stream'],
  infer([x]) {
    expectFloat('jitter', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], { p, seedLow, seedHigh, step, stream }, [y]) {
    const u = uniforms({ seed: seedHigh * 2 ** 32 + seedLow, step, stream }, 0, x!.data.length);
    for (let i = 0; i < u.length; i++) y!.data[i] = x!.data[i]! * (1 + p * (2 * u[i]! - 1));
  },
  vjp({ attrs, grad, into }) {
    launch(jitterOp, [grad(0)!], [into(0).tensor], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(5, 7)], attrs: { p: 0.4, seedLow: 5, seedHigh: 1, step: 9, stream: 3 } },
    { inputs: [r.randn(1037)], attrs: { p: 0.01, seedLow: 4294967295, seedHigh: 77, step: 0, stream: 1 } },
  ],
});

/** Multiplies by 1 ± p inside `withRandom` (training); elsewhere, and where p is 0, x passes through. */
export function jitter(x: Tensor, p: number): Tensor {
  if (p === 0) return x;
  const attrs = dropoutKey(p);
  return attrs.p === 0 ? x : apply(jitterOp, [x], attrs)[0]!;
}
