import { apply } from '../autograd/apply.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat } from './check.js';
import { defineOp } from './define-op.js';

interface SampleAttrs extends Record<string, number> {
  temperature: number;
  /** Only the k likeliest; 0: all. */
  topK: number;
  /** Only the likeliest that together have this share of what top-k left; 1: all. */
  topP: number;
  /** Only those with this share of the likeliest one's probability at least; 0: all. */
  minP: number;
}

/**
 * Draws a token for each row of scores x [B, V]: ids i32 [B]. Without more inputs the likeliest, the first of equals. With u f32 [B] in [0, 1) the
 * one whose share of the unit interval holds u, where shares are softmax(x / temperature) in the order of ids over what is left of them: the
 * topK largest; of these the largest of which all that are larger have less than topP together (Holtzman et al., arXiv:1904.09751); of these
 * those of minP times the largest at least (Nguyen et al., arXiv:2407.01082). Equal scores stay or go together. NaN counts as -infinity.
 */
export const sampleTokenOp = defineOp<SampleAttrs>({
  name: 'sample_token',
  attrs: ['temperature', 'topK', 'topP', 'minP'],
  infer([x, u], { temperature }) {
    expectFloat('sample_token', 'x', x!);
    expect(x!.shape.length === 2 && columns(x!) > 0, 'sample_token', 'x of shape [batch, vocabulary]', x!);
    const batch = x!.shape[0]!;
    if (u) {
      expect(u.dtype === 'f32' && u.shape.length === 1 && u.shape[0] === batch, 'sample_token', `u f32[${batch}]`, u);
      expect(temperature > 0, 'sample_token', 'a temperature above 0', `${temperature}`);
    }
    return [{ shape: [batch], dtype: 'i32' }];
  },
  reference([x, u], attrs, [ids]) {
    const size = columns(x!);
    for (let row = 0; row < x!.shape[0]!; row++) {
      const scores = Array.from(x!.data.subarray(row * size, (row + 1) * size), (s) => (Number.isNaN(s) ? Number.NEGATIVE_INFINITY : s));
      ids!.data[row] = u ? draw(scores, u.data[row]!, attrs) : scores.indexOf(Math.max(...scores));
    }
  },
  samples: (r) => [
    { inputs: [r.randn(5, 37)], attrs: plain, note: 'the likeliest' },
    { inputs: [r.randn(2, 5003)], attrs: plain, note: 'the likeliest of many' },
    { inputs: [r.randn(16, 37), r.uniform(0, 1, 16)], attrs: plain },
    { inputs: [r.randn(9, 5003), r.uniform(0, 1, 9)], attrs: { ...plain, temperature: 0.7 } },
    { inputs: [r.randn(9, 1037), r.uniform(0, 1, 9)], attrs: { ...plain, topK: 5 }, note: 'top k' },
    { inputs: [r.randn(9, 1037), r.uniform(0, 1, 9)], attrs: { ...plain, temperature: 1.5, topP: 0.6 }, note: 'top p' },
    { inputs: [r.randn(9, 1037), r.uniform(0, 1, 9)], attrs: { ...plain, minP: 0.2 }, note: 'min p' },
    { inputs: [r.randn(9, 4099), r.uniform(0, 1, 9)], attrs: { temperature: 0.9, topK: 400, topP: 0.8, minP: 0.05 }, note: 'all of them' },
  ],
});

const plain: SampleAttrs = { temperature: 1, topK: 0, topP: 1, minP: 0 };

function draw(scores: readonly number[], u: number, { temperature, topK, topP, minP }: SampleAttrs): number {
  const max = Math.max(...scores);
  if (!Number.isFinite(max)) return scores.indexOf(max);
  const weights = scores.map((s) => Math.exp((s - max) / temperature));
  const falling = [...weights].sort((a, b) => b - a);
  let least = topK > 0 && topK < weights.length ? falling[topK - 1]! : 0;
  if (topP < 1) {
    const left = falling.filter((w) => w >= least);
    const wanted = topP * left.reduce((sum, w) => sum + w, 0);
    let above = 0;
    for (const w of left) {
      if (above >= wanted && w < least) break;
      least = w;
      above += w;
    }
  }
  least = Math.max(least, minP);
  let rest = u * weights.reduce((sum, w) => (w >= least ? sum + w : sum), 0);
  for (const [id, w] of weights.entries()) {
    if (w < least) continue;
    rest -= w;
    if (rest < 0) return id;
  }
  return weights.findLastIndex((w) => w >= least && w > 0);
}

/**
 * y = x [B, V] with the scores of given tokens lowered: divided by `penalty` where they are positive, else multiplied with it (Keskar et al.,
 * arXiv:1909.05858); an infinite penalty makes them -infinity. Tokens i32 [L, B], a column for each row of x, or [L, 1] for all rows. A token that
 * comes several times counts once; -1 stands for none.
 */
export const penalizeTokensOp = defineOp<{ penalty: number }>({
  name: 'penalize_tokens',
  attrs: ['penalty'],
  infer([x, tokens]) {
    expectFloat('penalize_tokens', 'x', x!);
    expect(x!.shape.length === 2, 'penalize_tokens', 'x of shape [batch, vocabulary]', x!);
    const batch = x!.shape[0]!;
    const fits = tokens!.dtype === 'i32' && tokens!.shape.length === 2 && (columns(tokens!) === batch || columns(tokens!) === 1);
    expect(fits, 'penalize_tokens', `tokens i32[any, ${batch}]`, tokens!);
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  reference([x, tokens], { penalty }, [y]) {
    const [batch, size] = x!.shape as [number, number];
    y!.data.set(x!.data);
    for (let row = 0; row < batch; row++) {
      for (let i = 0; i < tokens!.shape[0]!; i++) {
        const token = tokens!.data[i * columns(tokens!) + (columns(tokens!) === 1 ? 0 : row)]!;
        if (token < 0 || token >= size) continue;
        const score = x!.data[row * size + token]!;
        y!.data[row * size + token] = penalty === Number.POSITIVE_INFINITY ? -penalty : score > 0 ? score / penalty : score * penalty;
      }
    }
  },
  samples: (r) => [
    { inputs: [r.randn(3, 50), r.ints(50, 40, 3)], attrs: { penalty: 1.3 } },
    { inputs: [r.randn(3, 50), r.ints(50, 4, 1)], attrs: { penalty: Number.POSITIVE_INFINITY }, note: 'forbidden' },
  ],
});

export interface SampleOptions {
  /** f32 [B] in [0, 1): what decides. Default: the likeliest token is taken. */
  readonly u?: Tensor | undefined;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
}

/** A token for each row of scores [B, V]: i32 [B]. No gradient flows. */
export function sampleToken(scores: Tensor, { u, temperature = 1, topK = 0, topP = 1, minP = 0 }: SampleOptions = {}): Tensor {
  return apply(sampleTokenOp, u ? [scores, u] : [scores], { temperature, topK, topP, minP })[0]!;
}

/** Scores [B, V] with those of `tokens` (i32 [L, B] or [L, 1], -1 for none) lowered; an infinite penalty forbids them. No gradient flows. */
export function penalizeTokens(scores: Tensor, tokens: Tensor, penalty: number): Tensor {
  return apply(penalizeTokensOp, [scores, tokens], { penalty })[0]!;
}
