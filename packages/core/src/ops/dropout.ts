import { apply } from '../autograd/apply.js';
import { randomContext } from '../random/context.js';
import { splitSeed, uniforms } from '../random/philox.js';
import type { Tensor } from '../tensor/tensor.js';
import { expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** Probability and Philox key of a random mask. */
export interface DropoutAttrs extends Record<string, number> {
  p: number;
  seedLow: number;
  seedHigh: number;
  step: number;
  stream: number;
}

/** y = x / (1 - p) where the mask keeps, else 0 (Srivastava et al., JMLR 2014). The mask is drawn again in backward, not saved. */
export const dropoutOp = defineOp<DropoutAttrs>({
  name: 'dropout',
  attrs: ['p', 'seedLow', 'seedHigh', 'step', 'stream'],
  infer([x]) {
    expectFloat('dropout', 'x', x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], { p, seedLow, seedHigh, step, stream }, [y]) {
    const u = uniforms({ seed: seedHigh * 2 ** 32 + seedLow, step, stream }, 0, x!.data.length);
    for (let i = 0; i < u.length; i++) y!.data[i] = u[i]! >= p ? x!.data[i]! / (1 - p) : 0;
  },
  vjp({ attrs, grad, into }) {
    launch(dropoutOp, [grad(0)!], [into(0).tensor], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(5, 7)], attrs: { p: 0.4, seedLow: 5, seedHigh: 1, step: 9, stream: 3 } },
    { inputs: [r.randn(1037)], attrs: { p: 0.1, seedLow: 4294967295, seedHigh: 77, step: 0, stream: 1 } },
  ],
});

/** Drops inside `withRandom` (training); elsewhere x passes through. */
export function dropout(x: Tensor, p: number): Tensor {
  const attrs = dropoutKey(p);
  return attrs.p === 0 ? x : apply(dropoutOp, [x], attrs)[0]!;
}

/** The next key of the random context; p = 0 where none is open. */
export function dropoutKey(p: number): DropoutAttrs {
  const context = randomContext();
  const [seedLow, seedHigh] = splitSeed(context.seed);
  // The stream number advances whether or not anything is dropped here, so that p = 0 in one layer moves no other layer's mask.
  return { p: context.active ? p : 0, seedLow, seedHigh, step: context.step, stream: context.nextStream++ };
}
