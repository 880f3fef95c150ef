import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

interface RopeAttrs extends Record<string, number> {
  rotatedHeads: number;
  headDim: number;
  sign: number;
  position: number;
}

/**
 * Rotary position embedding (Su et al., arXiv:2104.09864), halves paired as in Llama: element i of a head turns with i + D/2.
 * Inputs x [B, T, H*D] of which the first `rotatedHeads` heads turn and the rest (v) is copied; cos and sin f32 [T', D/2].
 */
export const ropeOp = defineOp<RopeAttrs>({
  name: 'rope',
  attrs: ['rotatedHeads', 'headDim', 'sign', 'position'],
  infer([x, cos, sin], { rotatedHeads, headDim, position }) {
    expectFloat('rope', 'x', x!);
    expect(x!.shape.length === 3, 'rope', 'x of shape [batch, tokens, heads * headDim]', x!);
    expect(headDim % 2 === 0, 'rope', 'an even head size', String(headDim));
    expect(
      columns(x!) % headDim === 0 && rotatedHeads * headDim <= columns(x!),
      'rope',
      `x with whole heads of ${headDim}, ${rotatedHeads} at least`,
      x!,
    );
    for (const table of [cos!, sin!]) {
      expect(table.dtype === 'f32' && columns(table) === headDim / 2, 'rope', `an f32 table with ${headDim / 2} columns`, table);
      expect(table.shape[0]! >= x!.shape[1]! + position, 'rope', `a table of ${x!.shape[1]! + position} positions at least`, table);
    }
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x, cos, sin], { rotatedHeads, headDim, sign, position }, [y]) {
    const [batch, tokens, width] = x!.shape as [number, number, number];
    const half = headDim / 2;
    y!.data.set(x!.data);
    for (let row = 0; row < batch * tokens; row++) {
      const at = ((row % tokens) + position) * half;
      for (let head = 0; head < rotatedHeads; head++) {
        const base = row * width + head * headDim;
        for (let i = 0; i < half; i++) {
          const c = cos!.data[at + i]!;
          const s = sign * sin!.data[at + i]!;
          const a = x!.data[base + i]!;
          const b = x!.data[base + half + i]!;
          y!.data[base + i] = a * c - b * s;
          y!.data[base + half + i] = b * c + a * s;
        }
      }
    }
  },
  saves: { inputs: [1, 2] },
  vjp({ attrs, input, grad, into }) {
    // A rotation's transpose is the rotation back.
    launch(ropeOp, [grad(0)!, input(1), input(2)], [into(0).tensor], { ...attrs, sign: -attrs.sign });
  },
  samples: (r) => [
    {
      inputs: [r.randn(2, 3, 24), r.uniform(-1, 1, 5, 4), r.uniform(-1, 1, 5, 4)],
      attrs: { rotatedHeads: 2, headDim: 8, sign: 1, position: 1 },
      differentiable: [0],
    },
    {
      inputs: [r.randn(2, 17, 4 * 64), r.uniform(-1, 1, 32, 32), r.uniform(-1, 1, 32, 32)],
      attrs: { rotatedHeads: 3, headDim: 64, sign: -1, position: 0 },
      differentiable: [],
    },
  ],
});

/** Turns the first `rotatedHeads` heads of x [B, T, H*D] by their positions, counted from `position`. */
export function rope(x: Argument, cos: Tensor, sin: Tensor, options: { rotatedHeads: number; headDim: number; position?: number }): Tensor {
  const { rotatedHeads, headDim, position = 0 } = options;
  return apply(ropeOp, [x, cos, sin], { rotatedHeads, headDim, sign: 1, position })[0]!;
}
