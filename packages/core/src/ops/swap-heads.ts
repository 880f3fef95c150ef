import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

interface SwapHeadsAttrs extends Record<string, number> {
  /** Groups that lie one after another in a row, and heads in each. */
  groups: number;
  heads: number;
}

/**
 * Rows x [.., groups * heads * D] as y [.., heads * groups * D]: head h of group g comes to place g of group h. So packed maps that give
 * [q | k | v] for one head after the other become all q, all k, all v (groups = heads, heads = 3), and back.
 */
export const swapHeadsOp = defineOp<SwapHeadsAttrs>({
  name: 'swap_heads',
  attrs: ['groups', 'heads'],
  infer([x], { groups, heads }) {
    expectFloat('swap_heads', 'x', x!);
    expect(columns(x!) % (groups * heads) === 0, 'swap_heads', `rows of ${groups} groups of ${heads} heads`, x!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x], { groups, heads }, [y]) {
    const size = columns(x!) / (groups * heads);
    for (let row = 0; row < rowsOf(x!); row++) {
      for (let g = 0; g < groups; g++) {
        for (let h = 0; h < heads; h++) {
          const from = row * columns(x!) + (g * heads + h) * size;
          y!.data.set(x!.data.subarray(from, from + size), row * columns(x!) + (h * groups + g) * size);
        }
      }
    }
  },
  vjp({ attrs: { groups, heads }, grad, into }) {
    launch(swapHeadsOp, [grad(0)!], [into(0).tensor], { groups: heads, heads: groups });
  },
  samples: (r) => [
    { inputs: [r.randn(2, 3, 4 * 3 * 5)], attrs: { groups: 4, heads: 3 } },
    { inputs: [r.randn(37, 3 * 6 * 16)], attrs: { groups: 6, heads: 3 }, differentiable: [] },
    { inputs: [r.randn(5, 3 * 2 * 40)], attrs: { groups: 3, heads: 2 }, differentiable: [] },
  ],
});

/** Rows of `groups` times `heads` heads, the other way round; see {@link swapHeadsOp}. */
export function swapHeads(x: Argument, groups: number, heads: number): Tensor {
  return apply(swapHeadsOp, [x], { groups, heads })[0]!;
}
