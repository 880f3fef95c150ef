import { type Argument, apply } from '../autograd/apply.js';
import { DeepSpeedError } from '../errors.js';
import { uniforms } from '../random/philox.js';
import { type HostTensor, hostTensor } from '../tensor/host.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import { columns, expect, expectFloat, sameShape } from './check.js';
import { defineOp } from './define-op.js';
import { type DropoutAttrs, dropoutKey } from './dropout.js';
import { launch } from './launch.js';
import type { Random } from './random-samples.js';

interface AttentionAttrs extends DropoutAttrs {
  heads: number;
  kvHeads: number;
  headDim: number;
  scale: number;
  causal: number;
  /** How many keys a query sees, back from its own position, itself included; 0: all. */
  window: number;
  /** Scores s become softcap tanh(s / softcap); 0: they stay. */
  softcap: number;
  /** Whether scores fall with the distance of query and key. */
  alibi: number;
}

const attrNames = [
  'heads',
  'kvHeads',
  'headDim',
  'scale',
  'causal',
  'p',
  'seedLow',
  'seedHigh',
  'step',
  'stream',
  'window',
  'softcap',
  'alibi',
] as const;

/**
 * y = softmax(scale q k') v by head, causal if asked, over a sliding window of keys if asked (Beltagy et al.,
 * arXiv:2004.05150). Input qkv [B, T, (Hq + 2 Hkv) D]: per token the query heads, then the key
 * heads, then the value heads; query head h reads key head floor(h / (Hq / Hkv)) (Ainslie et al., arXiv:2305.13245).
 * Optional input positions i32 [B, T]: a row holds several documents one after another, and this is where each token stands in its
 * own, from 0 on. Token i then sees keys from i - positions[i] on: no document sees another. Positions start at 0 and grow by at
 * most one from token to token; kernels refuse others where they see them (on the host at once, on a GPU at the next read).
 * With `softcap` a score s becomes softcap tanh(s / softcap) (Gemma 2, arXiv:2408.00118); with `alibi` it then gains slope(h) (j - i), with
 * the slopes of `alibiSlope` (Press et al., arXiv:2108.12409).
 * Outputs y [B, T, Hq D] and lse f32 [B, Hq, T], the logarithm of each row's sum of exponentials, from which backward rebuilds
 * the probabilities: the T x T matrix is never kept (Dao et al., arXiv:2205.14135).
 */
export const attentionOp = defineOp<AttentionAttrs>({
  name: 'attention',
  attrs: attrNames,
  infer([qkv, positions], { heads, kvHeads, headDim, window, causal }) {
    expectFloat('attention', 'qkv', qkv!);
    expect(heads % kvHeads === 0, 'attention', 'query heads to be a multiple of key heads', `${heads} and ${kvHeads}`);
    const whole = window === undefined || (Number.isInteger(window) && window >= 0);
    expect(whole, 'attention', 'a window of a whole number of keys, 0 for all', `${window}`);
    const width = (heads + 2 * kvHeads) * headDim;
    expect(qkv!.shape.length === 3 && columns(qkv!) === width, 'attention', `qkv of shape [batch, tokens, ${width}]`, qkv!);
    const [batch, tokens] = qkv!.shape as [number, number, number];
    if (positions) {
      const fits = positions.dtype === 'i32' && sameShape(positions.shape, [batch, tokens]);
      expect(fits, 'attention', `positions i32[${batch}, ${tokens}]`, positions);
      expect(causal !== 0, 'attention', 'a causal mask where positions tell documents apart', 'causal false');
    }
    return [
      { shape: [batch, tokens, heads * headDim], dtype: qkv!.dtype },
      { shape: [batch, heads, tokens], dtype: 'f32' },
    ];
  },
  reference([qkv, positions], attrs, [y, lse]) {
    eachHead(qkv!, positions, attrs, ({ q, k, v, out, row, begin, end, keep, score }) => {
      const scores = Array.from({ length: end - begin }, (_, at) => score(begin + at, dot(qkv!, q, k(begin + at), attrs.headDim)).value);
      const max = scores.reduce((a, s) => Math.max(a, s), Number.NEGATIVE_INFINITY);
      const sum = scores.reduce((a, s) => a + Math.exp(s - max), 0);
      lse!.data[row] = max + Math.log(sum);
      for (let d = 0; d < attrs.headDim; d++) {
        let value = 0;
        for (let j = begin; j < end; j++) value += (Math.exp(scores[j - begin]! - max) / sum) * keep(j) * qkv!.data[v(j) + d]!;
        y!.data[out + d] = value;
      }
    });
  },
  saves: { inputs: [0, 1], outputs: [0, 1] },
  vjp({ attrs, inputSpecs, input, output, grad, into }) {
    const documents = inputSpecs.length > 1 ? [input(1)] : [];
    launch(attentionBackward, [grad(0)!, input(0), output(0), output(1), ...documents], [into(0).tensor], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(2, 5, 3 * 2 * 4)], attrs: shape(2, 2, 4) },
    { inputs: [r.randn(1, 6, (4 + 2 * 2) * 4)], attrs: shape(4, 2, 4), note: 'grouped heads' },
    { inputs: [r.randn(1, 5, 3 * 8)], attrs: { ...shape(1, 1, 8), causal: 0 }, note: 'not causal' },
    { inputs: [r.randn(1, 6, 3 * 8)], attrs: { ...shape(1, 1, 8), p: 0.3, seedLow: 7, step: 3, stream: 2 }, note: 'dropout' },
    { inputs: [r.randn(2, 130, (4 + 2 * 2) * 16)], attrs: shape(4, 2, 16), differentiable: [], note: 'several blocks' },
    { inputs: [r.randn(1, 67, 3 * 64)], attrs: shape(1, 1, 64), differentiable: [] },
    { inputs: [r.randn(1, 70, 3 * 24)], attrs: { ...shape(1, 1, 24), causal: 0 }, differentiable: [] },
    { inputs: [r.randn(1, 7, 3 * 8)], attrs: { ...shape(1, 1, 8), window: 3 }, note: 'sliding window' },
    {
      inputs: [r.randn(1, 300, 3 * 64)],
      attrs: { ...shape(1, 1, 64), window: 37 },
      differentiable: [],
      note: 'sliding window, several blocks',
    },
    { inputs: [r.randn(1, 6, (3 + 2) * 8)], attrs: { ...shape(3, 1, 8), scale: 1, softcap: 2 }, note: 'soft cap' },
    { inputs: [r.randn(1, 6, (6 + 6) * 4)], attrs: { ...shape(6, 3, 4), alibi: 1 }, note: 'alibi, heads no power of two' },
    { inputs: [r.randn(1, 6, 3 * 8)], attrs: { ...shape(1, 1, 8), scale: 1, softcap: 2, alibi: 1, window: 3 }, note: 'all of it' },
    { inputs: [r.randn(2, 7, (2 + 2) * 4), documents(7, [3, 1, 3], [1, 1, 5])], attrs: shape(2, 1, 4), note: 'documents' },
    { inputs: [r.randn(1, 9, 3 * 4), documents(9, [1, 6, 2])], attrs: { ...shape(1, 1, 4), window: 3 }, note: 'documents and a window' },
    ...bentSamples(r).map(({ qkv, attrs, note }) => ({ inputs: [qkv], attrs, differentiable: [], note })),
    ...documentSamples(r).map(({ qkv, positions, attrs, note }) => ({ inputs: [qkv, positions], attrs, differentiable: [], note })),
  ],
});

/** Inputs dy, qkv, y, lse and, where attention had them, positions; output dqkv. */
export const attentionBackward = defineOp<AttentionAttrs>({
  name: 'attention_backward',
  attrs: attrNames,
  infer: ([, qkv]) => [{ shape: qkv!.shape, dtype: qkv!.dtype }],
  reference([dy, qkv, y, lse, positions], attrs, [dqkv]) {
    const { headDim } = attrs;
    dqkv!.data.fill(0);
    eachHead(qkv!, positions, attrs, ({ q, k, v, out, row, begin, end, keep, score }) => {
      // delta = dy . y = sum_j P_j dP_j, the softmax's own correction.
      let delta = 0;
      for (let d = 0; d < headDim; d++) delta += dy!.data[out + d]! * y!.data[out + d]!;
      for (let j = begin; j < end; j++) {
        const { value, slope } = score(j, dot(qkv!, q, k(j), headDim));
        const p = Math.exp(value - lse!.data[row]!);
        let dp = 0;
        for (let d = 0; d < headDim; d++) {
          dp += dy!.data[out + d]! * qkv!.data[v(j) + d]!;
          dqkv!.data[v(j) + d]! += p * keep(j) * dy!.data[out + d]!;
        }
        const ds = slope * p * (dp * keep(j) - delta);
        for (let d = 0; d < headDim; d++) {
          dqkv!.data[q + d]! += ds * qkv!.data[k(j) + d]!;
          dqkv!.data[k(j) + d]! += ds * qkv!.data[q + d]!;
        }
      }
    });
  },
  // y and lse must belong to qkv for the gradient to mean anything: computed by the forward reference.
  samples: (r) =>
    [
      { qkv: r.randn(2, 130, (4 + 2 * 2) * 16), attrs: shape(4, 2, 16) },
      { qkv: r.randn(1, 67, 3 * 64), attrs: shape(1, 1, 64) },
      { qkv: r.randn(1, 70, 3 * 24), attrs: { ...shape(1, 1, 24), causal: 0 } },
      { qkv: r.randn(1, 300, 3 * 64), attrs: { ...shape(1, 1, 64), window: 37 } },
      { qkv: r.randn(1, 40, 3 * 16), attrs: { ...shape(1, 1, 16), causal: 0, window: 9 } },
      { qkv: r.randn(1, 40, 3 * 16), attrs: { ...shape(1, 1, 16), p: 0.3, seedLow: 7, step: 3, stream: 2 } },
      ...bentSamples(r),
      ...documentSamples(r),
    ].map(({ qkv, attrs, ...more }) => {
      const { positions, note } = more as Partial<DocumentSample>;
      const inputs = positions ? [qkv, positions] : [qkv];
      const [y, lse] = attentionOp.infer(inputs, attrs).map(({ shape, dtype }) => emptyHost(shape, dtype));
      attentionOp.reference(inputs, attrs, [y!, lse!]);
      return { inputs: [r.randn(...y!.shape), qkv, y!, lse!, ...inputs.slice(1)], attrs, ...(note ? { note } : {}) };
    }),
});

export interface AttentionOptions {
  readonly heads: number;
  /** Default: as many as query heads. */
  readonly kvHeads?: number;
  readonly headDim: number;
  /** Default 1/sqrt(headDim). */
  readonly scale?: number;
  readonly causal?: boolean;
  /** A query sees this many keys, back from its own position, itself included; default 0: all of them. */
  readonly window?: number;
  /** Scores s become softcap tanh(s / softcap); default 0: they stay. */
  readonly softcap?: number;
  /** Scores fall with the distance of query and key, in each head by a slope of its own; default false. */
  readonly alibi?: boolean;
  /** Probability that an attention weight is dropped; default 0. */
  readonly dropout?: number;
  /**
   * i32 [B, T]: where each token stands in its document, from 0 on; a token sees its own document alone. Only with a causal mask.
   * Default: a row is one document.
   */
  readonly positions?: Tensor | undefined;
}

/** Attention over packed qkv [B, T, (heads + 2 kvHeads) headDim]; gives [B, T, heads * headDim]. */
export function attention(qkv: Argument, options: AttentionOptions): Tensor {
  const { heads, kvHeads = heads, headDim, scale = 1 / Math.sqrt(headDim), causal = true, window = 0, dropout = 0 } = options;
  const { softcap = 0, alibi = false, positions } = options;
  return apply(attentionOp, positions ? [qkv, positions] : [qkv], {
    heads,
    kvHeads,
    headDim,
    scale,
    causal: Number(causal),
    window,
    softcap,
    alibi: Number(alibi),
    ...dropoutKey(dropout),
  })[0]!;
}

interface HeadRow {
  /** Offsets of the query and, by key position, of keys and values in qkv; of the output row in y. */
  q: number;
  k(j: number): number;
  v(j: number): number;
  out: number;
  /** Index into lse. */
  row: number;
  /** The query sees keys [begin, end). */
  begin: number;
  end: number;
  /** Factor of probability j under dropout. */
  keep(j: number): number;
  /** The score of key j from q . k, and its derivative by that. */
  score(j: number, product: number): { value: number; slope: number };
}

function eachHead(qkv: TensorSpec, positions: HostTensor | undefined, attrs: AttentionAttrs, body: (at: HeadRow) => void): void {
  const { heads, kvHeads, headDim, scale, causal, window, p, seedLow, seedHigh, step, stream, softcap, alibi } = attrs;
  const [batch, tokens, width] = qkv.shape as [number, number, number];
  if (positions) checkPositions(positions);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kv = Math.floor(h / (heads / kvHeads));
      const bias = alibi ? alibiSlope(h, heads) : 0;
      for (let i = 0; i < tokens; i++) {
        const row = (b * heads + h) * tokens + i;
        const mask = p > 0 ? uniforms({ seed: seedHigh * 2 ** 32 + seedLow, step, stream }, row * tokens, tokens) : undefined;
        body({
          q: (b * tokens + i) * width + h * headDim,
          k: (j) => (b * tokens + j) * width + (heads + kv) * headDim,
          v: (j) => (b * tokens + j) * width + (heads + kvHeads + kv) * headDim,
          out: (b * tokens + i) * heads * headDim + h * headDim,
          row,
          begin: Math.max(window > 0 ? i + 1 - window : 0, positions ? i - positions.data[b * tokens + i]! : 0, 0),
          end: causal ? i + 1 : tokens,
          keep: (j) => (mask ? (mask[j]! >= p ? 1 / (1 - p) : 0) : 1),
          score: (j, product) => {
            const bent = softcap > 0 ? Math.tanh((scale * product) / softcap) : 0;
            const value = softcap > 0 ? softcap * bent : scale * product;
            return { value: value + bias * (j - i), slope: scale * (1 - bent * bent) };
          },
        });
      }
    }
  }
}

/**
 * What a head's scores lose for each key further back: 2^(-8 (h + 1) / n) for n heads, n a power of two. For other numbers the slopes of
 * the next smaller power of two come first, then every other one of twice that many heads.
 */
export function alibiSlope(head: number, heads: number): number {
  const n = 2 ** Math.floor(Math.log2(heads));
  return head < n ? 2 ** ((-8 * (head + 1)) / n) : 2 ** ((-4 * (2 * (head - n) + 1)) / n);
}

function dot(x: HostTensor, a: number, b: number, n: number): number {
  let sum = 0;
  for (let d = 0; d < n; d++) sum += x.data[a + d]! * x.data[b + d]!;
  return sum;
}

function shape(heads: number, kvHeads: number, headDim: number): AttentionAttrs {
  return {
    heads,
    kvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
    causal: 1,
    window: 0,
    softcap: 0,
    alibi: 0,
    p: 0,
    seedLow: 0,
    seedHigh: 0,
    step: 0,
    stream: 0,
  };
}

function emptyHost(size: readonly number[], dtype: TensorSpec['dtype']): HostTensor {
  return { shape: size, dtype, data: new Float64Array(size.reduce((a, b) => a * b, 1)) };
}

/** Positions start at 0 in each row and grow by at most one: where documents start never moves back. */
function checkPositions({ shape, data }: HostTensor): void {
  const tokens = shape[1]!;
  for (const [at, position] of data.entries()) {
    const i = at % tokens;
    const most = i === 0 ? 0 : data[at - 1]! + 1;
    if (position >= 0 && position <= most) continue;
    throw new DeepSpeedError(
      'ERR_KERNEL',
      `[attention] position ${position} of token ${i} in row ${(at - i) / tokens}, expected 0 to ${most}: positions count from 0 in each document`,
    );
  }
}

/** Positions of rows that are cut into documents of these lengths; what is left of a row is one more. */
function documents(tokens: number, ...rows: readonly (readonly number[])[]): HostTensor {
  const values = rows.flatMap((lengths) => {
    const left = tokens - lengths.reduce((a, b) => a + b, 0);
    return [...lengths, left].flatMap((length) => Array.from({ length }, (_, i) => i));
  });
  return hostTensor([rows.length, tokens], 'i32', values);
}

/** Capped scores and scores that fall with distance, for every family of kernels. */
function bentSamples(r: Random): { qkv: HostTensor; attrs: AttentionAttrs; note: string }[] {
  const capped = { scale: 0.5, softcap: 5 };
  return [
    { qkv: r.randn(2, 300, (2 + 2) * 64), attrs: { ...shape(2, 1, 64), ...capped }, note: 'soft cap, several blocks' },
    { qkv: r.randn(1, 150, 3 * 256), attrs: { ...shape(1, 1, 256), ...capped, scale: 0.2 }, note: 'soft cap, heads of 256' },
    { qkv: r.randn(1, 300, 3 * 128), attrs: { ...shape(1, 1, 128), ...capped, window: 100 }, note: 'soft cap and a window' },
    { qkv: r.randn(1, 300, 9 * 64), attrs: { ...shape(3, 3, 64), alibi: 1 }, note: 'alibi, several blocks' },
    { qkv: r.randn(1, 140, 6 * 128), attrs: { ...shape(2, 2, 128), alibi: 1 }, note: 'alibi, heads of 128' },
    { qkv: r.randn(1, 140, 6 * 96), attrs: { ...shape(2, 2, 96), alibi: 1 }, note: 'alibi, heads of 96' },
    { qkv: r.randn(1, 70, 6 * 24), attrs: { ...shape(2, 2, 24), ...capped, alibi: 1 }, note: 'soft cap and alibi, heads of 24' },
    { qkv: r.randn(1, 40, 3 * 16), attrs: { ...shape(1, 1, 16), ...capped, causal: 0 }, note: 'soft cap, not causal' },
  ];
}

interface DocumentSample {
  readonly qkv: HostTensor;
  readonly positions: HostTensor;
  readonly attrs: AttentionAttrs;
  readonly note: string;
}

/** Documents that end inside, at and beyond tiles of kernels, of one token too; for every family of kernels. */
function documentSamples(r: Random): DocumentSample[] {
  const ragged = documents(300, [1, 1, 62, 64, 129], [255, 1, 1]);
  return [
    { qkv: r.randn(2, 300, (2 + 2) * 64), positions: ragged, attrs: shape(2, 1, 64), note: 'documents, grouped heads' },
    {
      qkv: r.randn(2, 300, 3 * 64),
      positions: ragged,
      attrs: { ...shape(1, 1, 64), window: 37 },
      note: 'documents and a window, several blocks',
    },
    { qkv: r.randn(1, 140, 3 * 128), positions: documents(140, [5, 90, 1]), attrs: shape(1, 1, 128), note: 'documents, heads of 128' },
    { qkv: r.randn(1, 70, 3 * 24), positions: documents(70, [33, 1, 20]), attrs: shape(1, 1, 24), note: 'documents, heads of 24' },
    {
      qkv: r.randn(1, 40, 3 * 16),
      positions: documents(40, [7, 30]),
      attrs: { ...shape(1, 1, 16), p: 0.3, seedLow: 7, step: 3, stream: 2 },
      note: 'documents and dropout',
    },
  ];
}
