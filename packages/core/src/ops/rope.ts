import { type Argument, apply } from '../autograd/apply.js';
import { DeepSpeedError } from '../errors.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, sameShape } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

interface RopeAttrs extends Record<string, number> {
  rotatedHeads: number;
  headDim: number;
  sign: number;
  position: number;
  /** Elements of each head that turn, the first ones. */
  rotaryDim: number;
}

/**
 * Rotary position embedding (Su et al., arXiv:2104.09864), halves paired as in Llama: element i of a head turns with i + R/2, where R of
 * its D elements turn (`rotaryDim`) and the others are copied.
 * Inputs x [B, T, H*D] of which the first `rotatedHeads` heads turn and the rest (v) is copied; cos and sin f32 [T', R/2].
 * A token stands at `position` plus its place in the row, or plus positions[b, t] where that optional input i32 [B, T] is given.
 */
export const ropeOp = defineOp<RopeAttrs>({
  name: 'rope',
  attrs: ['rotatedHeads', 'headDim', 'sign', 'position', 'rotaryDim'],
  infer([x, cos, sin, positions], { rotatedHeads, headDim, position, rotaryDim }) {
    expectFloat('rope', 'x', x!);
    expect(x!.shape.length === 3, 'rope', 'x of shape [batch, tokens, heads * headDim]', x!);
    expect(rotaryDim % 2 === 0, 'rope', 'an even head size', String(rotaryDim));
    expect(rotaryDim <= headDim, 'rope', `at most ${headDim} elements of a head to turn`, String(rotaryDim));
    expect(
      columns(x!) % headDim === 0 && rotatedHeads * headDim <= columns(x!),
      'rope',
      `x with whole heads of ${headDim}, ${rotatedHeads} at least`,
      x!,
    );
    for (const table of [cos!, sin!]) {
      expect(table.dtype === 'f32' && columns(table) === rotaryDim / 2, 'rope', `an f32 table with ${rotaryDim / 2} columns`, table);
      expect(table.shape[0]! >= x!.shape[1]! + position, 'rope', `a table of ${x!.shape[1]! + position} positions at least`, table);
    }
    if (positions) {
      const rows = x!.shape.slice(0, 2);
      expect(positions.dtype === 'i32' && sameShape(positions.shape, rows), 'rope', `positions i32[${rows.join(', ')}]`, positions);
    }
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x, cos, sin, positions], { rotatedHeads, headDim, sign, position, rotaryDim }, [y]) {
    const [batch, tokens, width] = x!.shape as [number, number, number];
    const half = rotaryDim / 2;
    y!.data.set(x!.data);
    for (let row = 0; row < batch * tokens; row++) {
      const place = (positions ? positions.data[row]! : row % tokens) + position;
      if (place < 0 || place >= cos!.shape[0]!) {
        throw new DeepSpeedError(
          'ERR_KERNEL',
          `[rope] position ${place} of token ${row % tokens} in row ${Math.floor(row / tokens)} is outside the table's 0..${cos!.shape[0]! - 1}`,
        );
      }
      const at = place * half;
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
  saves: { inputs: [1, 2, 3] },
  vjp({ attrs, inputSpecs, input, grad, into }) {
    // A rotation's transpose is the rotation back.
    const positions = inputSpecs.length > 3 ? [input(3)] : [];
    launch(ropeOp, [grad(0)!, input(1), input(2), ...positions], [into(0).tensor], { ...attrs, sign: -attrs.sign });
  },
  samples: (r) => [
    {
      inputs: [r.randn(2, 3, 24), r.uniform(-1, 1, 5, 4), r.uniform(-1, 1, 5, 4)],
      attrs: { rotatedHeads: 2, headDim: 8, sign: 1, position: 1, rotaryDim: 8 },
      differentiable: [0],
    },
    {
      inputs: [r.randn(2, 17, 4 * 64), r.uniform(-1, 1, 32, 32), r.uniform(-1, 1, 32, 32)],
      attrs: { rotatedHeads: 3, headDim: 64, sign: -1, position: 0, rotaryDim: 64 },
      differentiable: [],
    },
    {
      inputs: [r.randn(2, 3, 36), r.uniform(-1, 1, 5, 2), r.uniform(-1, 1, 5, 2)],
      attrs: { rotatedHeads: 2, headDim: 12, sign: 1, position: 1, rotaryDim: 4 },
      differentiable: [0],
      note: 'a part of each head',
    },
    {
      inputs: [r.randn(2, 17, 4 * 64), r.uniform(-1, 1, 32, 16), r.uniform(-1, 1, 32, 16)],
      attrs: { rotatedHeads: 3, headDim: 64, sign: 1, position: 0, rotaryDim: 32 },
      differentiable: [],
      note: 'a part of each head',
    },
    {
      inputs: [r.randn(2, 5, 24), r.uniform(-1, 1, 9, 4), r.uniform(-1, 1, 9, 4), r.ints(8, 2, 5)],
      attrs: { rotatedHeads: 2, headDim: 8, sign: 1, position: 1, rotaryDim: 8 },
      differentiable: [0],
      note: 'positions',
    },
    {
      inputs: [r.randn(2, 17, 4 * 64), r.uniform(-1, 1, 32, 32), r.uniform(-1, 1, 32, 32), r.ints(32, 2, 17)],
      attrs: { rotatedHeads: 3, headDim: 64, sign: -1, position: 0, rotaryDim: 64 },
      differentiable: [],
      note: 'positions',
    },
  ],
});

export interface RopeOptions {
  readonly rotatedHeads: number;
  readonly headDim: number;
  /** Elements of each head that turn, the first ones; default: all. */
  readonly rotaryDim?: number;
  /** Of the first token; default 0. */
  readonly position?: number;
  /** i32 [B, T], added to `position`; default: a token's place in its row. */
  readonly positions?: Tensor | undefined;
}

/** Turns the first `rotatedHeads` heads of x [B, T, H*D] by the tokens' positions. */
export function rope(x: Argument, cos: Tensor, sin: Tensor, options: RopeOptions): Tensor {
  const { rotatedHeads, headDim, rotaryDim = headDim, position = 0, positions } = options;
  const inputs = positions ? [x, cos, sin, positions] : [x, cos, sin];
  return apply(ropeOp, inputs, { rotatedHeads, headDim, sign: 1, position, rotaryDim })[0]!;
}
