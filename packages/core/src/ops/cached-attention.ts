import { empty } from '../tensor/create.js';
import type { HostTensor } from '../tensor/host.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import { alibiSlope } from './attention.js';
import { columns, expect, expectFloat, expectSame } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';
import type { Random } from './random-samples.js';

interface AppendAttrs extends Record<string, number> {
  heads: number;
  kvHeads: number;
  headDim: number;
  /** Slots that are taken: token t of the new ones goes to slot `length` + t. */
  length: number;
}

interface CachedAttentionAttrs extends AppendAttrs {
  scale: number;
  /** How many keys a query sees, back from its own slot, itself included; 0: all. */
  window: number;
  /** Scores s become softcap tanh(s / softcap); 0: they stay. */
  softcap: number;
  /** Whether scores fall with the distance of query and key. */
  alibi: number;
}

/**
 * Copies keys and values of new tokens into a cache. Input qkv [B, T, (Hq + 2 Hkv) D] as `attention` takes it; outputs keys and values
 * [n B, Hkv, capacity, D] of n B sequences, each row of qkv serving n neighbours: several continuations of one prompt. Slots from
 * `length` on are written, the others stay.
 */
export const cacheAppend = defineOp<AppendAttrs>({
  name: 'cache_append',
  attrs: ['heads', 'kvHeads', 'headDim', 'length'],
  infer([qkv], attrs) {
    const { batch, cache } = inferCache('cache_append', qkv!, attrs);
    return [cache(batch), cache(batch)];
  },
  reference([qkv], attrs, [keys, values]) {
    append(qkv!, attrs, keys!, values!);
  },
  samples: (r) => [
    { inputs: [r.randn(2, 3, 4 * 8)], attrs: { heads: 2, kvHeads: 1, headDim: 8, length: 2 }, outputs: caches(r, 2, 1, 7, 8) },
    {
      inputs: [r.randn(2, 5, 6 * 20)],
      attrs: { heads: 2, kvHeads: 2, headDim: 20, length: 0 },
      outputs: caches(r, 6, 2, 5, 20),
      note: 'three sequences of each row',
    },
  ],
});

/**
 * Attention of new tokens to a sequence whose keys and values are kept: appends those of the new tokens to the cache, as `cache_append`,
 * and gives y [B, T, Hq D], softmax(scale q k') v by head over what each token sees. Inputs qkv [B, T, (Hq + 2 Hkv) D] and starts i32 [B]: where
 * each row begins, for rows of unequal length end at the same slot (left padding). Token t stands in slot i = `length` + t and sees slots
 * from max(starts[b], i + 1 - window) to i; one before its row's start sees itself alone. Scores are capped and biased as those of `attention`. Outputs y, keys and values [B, Hkv, capacity, D].
 * Kernels add over keys in an order that counts from the first that is seen: a row's result does not depend on its padding or its batch.
 */
export const cachedAttentionOp = defineOp<CachedAttentionAttrs>({
  name: 'cached_attention',
  attrs: ['heads', 'kvHeads', 'headDim', 'length', 'scale', 'window', 'softcap', 'alibi'],
  infer([qkv, starts], attrs) {
    const { batch, cache } = inferCache('cached_attention', qkv!, attrs);
    const { window, heads, headDim } = attrs;
    expect(Number.isInteger(window) && window >= 0, 'cached_attention', 'a window of a whole number of keys, 0 for all', `${window}`);
    expect(starts!.dtype === 'i32' && starts!.shape.length === 1, 'cached_attention', `starts i32[${batch}]`, starts!);
    expect(starts!.shape[0] === batch, 'cached_attention', `starts i32[${batch}]`, starts!);
    return [{ shape: [batch, qkv!.shape[1]!, heads * headDim], dtype: qkv!.dtype }, cache(batch), cache(batch)];
  },
  reference([qkv, starts], attrs, [y, keys, values]) {
    append(qkv!, attrs, keys!, values!);
    const { heads, kvHeads, headDim, length, scale, window, softcap, alibi } = attrs;
    const [batch, tokens, width] = qkv!.shape as [number, number, number];
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < tokens; t++) {
        const slot = length + t;
        const begin = Math.min(slot, Math.max(starts!.data[b]!, window > 0 ? slot + 1 - window : 0));
        for (let h = 0; h < heads; h++) {
          const q = (b * tokens + t) * width + h * headDim;
          const at = (j: number) => ((b * kvHeads + Math.floor(h / (heads / kvHeads))) * keys!.shape[2]! + j) * headDim;
          const seen = Array.from({ length: slot + 1 - begin }, (_, j) => begin + j);
          const scores = seen.map((j) => {
            let sum = 0;
            for (let d = 0; d < headDim; d++) sum += qkv!.data[q + d]! * keys!.data[at(j) + d]!;
            const score = softcap > 0 ? softcap * Math.tanh((scale * sum) / softcap) : scale * sum;
            return alibi ? score + alibiSlope(h, heads) * (j - slot) : score;
          });
          const max = scores.reduce((a, s) => Math.max(a, s), Number.NEGATIVE_INFINITY);
          const weights = scores.map((s) => Math.exp(s - max));
          const total = weights.reduce((a, w) => a + w, 0);
          for (let d = 0; d < headDim; d++) {
            const value = seen.reduce((sum, j, i) => sum + weights[i]! * values!.data[at(j) + d]!, 0);
            y!.data[((b * tokens + t) * heads + h) * headDim + d] = value / total;
          }
        }
      }
    }
  },
  samples: (r) => [
    sample(r, { tokens: 1, starts: [0, 3], heads: 2, kvHeads: 2, headDim: 8, length: 5, capacity: 9 }, 'one token'),
    sample(r, { tokens: 4, starts: [2, 0], heads: 4, kvHeads: 2, headDim: 16, length: 3, capacity: 7 }, 'several tokens, grouped heads'),
    sample(r, { tokens: 3, starts: [4, 0], heads: 2, kvHeads: 1, headDim: 8, length: 0, capacity: 3 }, 'an empty cache, a row of padding'),
    sample(r, { tokens: 1, starts: [0, 650], heads: 6, kvHeads: 2, headDim: 64, length: 700, capacity: 701 }, 'several blocks of keys'),
    sample(r, { tokens: 1, starts: [9], heads: 8, kvHeads: 1, headDim: 128, length: 530, capacity: 600 }, 'eight heads on one'),
    sample(r, { tokens: 3, starts: [0], heads: 12, kvHeads: 1, headDim: 24, length: 20, capacity: 24 }, 'twelve heads on one'),
    sample(r, { tokens: 1, starts: [0], heads: 5, kvHeads: 5, headDim: 20, length: 33, capacity: 40 }, 'heads of 20'),
    sample(r, { tokens: 1, starts: [0, 7], heads: 2, kvHeads: 1, headDim: 256, length: 300, capacity: 301 }, 'heads of 256'),
    sample(r, { tokens: 1, starts: [0, 290], heads: 2, kvHeads: 1, headDim: 64, length: 300, capacity: 310, window: 37 }, 'window'),
    sample(
      r,
      { tokens: 1, starts: [0, 3], heads: 6, kvHeads: 3, headDim: 16, length: 290, capacity: 300, softcap: 2, alibi: 1 },
      'bent scores',
    ),
    sample(
      r,
      { tokens: 70, starts: [0, 5], heads: 2, kvHeads: 1, headDim: 32, length: 10, capacity: 80, window: 9 },
      'window, many tokens',
    ),
  ],
});

export interface KeyValueCache {
  /** [B, Hkv, capacity, D], like `values`. */
  readonly keys: Tensor;
  readonly values: Tensor;
}

export interface CachedAttentionOptions {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Slots of the cache that are taken. */
  readonly length: number;
  /** i32 [B]: the first slot of each row. */
  readonly starts: Tensor;
  /** Default 1/sqrt(headDim). */
  readonly scale?: number | undefined;
  /** Default 0: a token sees all before it. */
  readonly window?: number | undefined;
  /** Scores s become softcap tanh(s / softcap); default 0: they stay. */
  readonly softcap?: number | undefined;
  /** Scores fall with the distance of query and key, in each head by a slope of its own; default false. */
  readonly alibi?: boolean | undefined;
}

/** Appends new tokens' keys and values to the cache and attends to it: y [B, T, heads * headDim] of qkv [B, T, (heads + 2 kvHeads) headDim]. No gradient flows. */
export function cachedAttention(qkv: Tensor, cache: KeyValueCache, options: CachedAttentionOptions): Tensor {
  const { heads, kvHeads, headDim, length, starts, scale = 1 / Math.sqrt(headDim), window = 0 } = options;
  const { softcap = 0, alibi = false } = options;
  const attrs = { heads, kvHeads, headDim, length, scale, window, softcap, alibi: Number(alibi) };
  const [spec, keys] = cachedAttentionOp.infer([qkv, starts], attrs) as [TensorSpec, TensorSpec];
  checkCache('cached_attention', cache, keys, 1);
  const y = empty(qkv.device, spec.shape, spec.dtype);
  launch(cachedAttentionOp, [qkv, starts], [y, cache.keys, cache.values], attrs);
  return y;
}

/** Copies keys and values of qkv [B, T, (heads + 2 kvHeads) headDim] into the cache of B sequences, or of n B. */
export function appendToCache(
  qkv: Tensor,
  cache: KeyValueCache,
  { heads, kvHeads, headDim, length }: Pick<CachedAttentionOptions, 'heads' | 'kvHeads' | 'headDim' | 'length'>,
): void {
  const attrs = { heads, kvHeads, headDim, length };
  const [keys] = cacheAppend.infer([qkv], attrs) as [TensorSpec];
  checkCache('cache_append', cache, keys, cache.keys.shape[0]! / qkv.shape[0]!);
  launch(cacheAppend, [qkv], [cache.keys, cache.values], attrs);
}

function checkCache(op: string, { keys, values }: KeyValueCache, least: TensorSpec, repeats: number): void {
  const [batch, kvHeads, slots, headDim] = least.shape as [number, number, number, number];
  const [rows, heads, capacity = 0, width] = keys.shape;
  const fits =
    rows === batch * repeats && Number.isInteger(repeats) && heads === kvHeads && width === headDim && keys.dtype === least.dtype;
  expect(fits, op, `keys ${least.dtype}[${batch}, ${kvHeads}, capacity, ${headDim}]`, keys);
  expect(capacity >= slots, op, `a cache of ${slots} slots at least`, keys);
  expectSame(op, 'values', values, keys);
}

/** What both ops ask of qkv, and the least cache that they write to. */
function inferCache(op: string, qkv: TensorSpec, { heads, kvHeads, headDim, length }: AppendAttrs) {
  expectFloat(op, 'qkv', qkv);
  expect(heads % kvHeads === 0, op, 'query heads to be a multiple of key heads', `${heads} and ${kvHeads}`);
  const width = (heads + 2 * kvHeads) * headDim;
  expect(qkv.shape.length === 3 && columns(qkv) === width, op, `qkv of shape [batch, tokens, ${width}]`, qkv);
  const [batch, tokens] = qkv.shape as [number, number, number];
  return { batch, cache: (rows: number): TensorSpec => ({ shape: [rows, kvHeads, length + tokens, headDim], dtype: qkv.dtype }) };
}

function append(qkv: HostTensor, { heads, kvHeads, headDim, length }: AppendAttrs, keys: HostTensor, values: HostTensor): void {
  const [batch, tokens, width] = qkv.shape as [number, number, number];
  const [rows, , capacity] = keys.shape as [number, number, number, number];
  for (let row = 0; row < rows; row++) {
    const from = Math.floor(row / (rows / batch)) * tokens * width;
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < kvHeads; h++) {
        const to = ((row * kvHeads + h) * capacity + length + t) * headDim;
        for (let d = 0; d < headDim; d++) {
          keys.data[to + d] = qkv.data[from + t * width + (heads + h) * headDim + d]!;
          values.data[to + d] = qkv.data[from + t * width + (heads + kvHeads + h) * headDim + d]!;
        }
      }
    }
  }
}

interface SampleShape {
  tokens: number;
  starts: number[];
  heads: number;
  kvHeads: number;
  headDim: number;
  length: number;
  capacity: number;
  window?: number;
  softcap?: number;
  alibi?: number;
}

function caches(r: Random, batch: number, kvHeads: number, capacity: number, headDim: number): HostTensor[] {
  return [r.randn(batch, kvHeads, capacity, headDim), r.randn(batch, kvHeads, capacity, headDim)];
}

function sample(r: Random, { tokens, starts, capacity, ...shape }: SampleShape, note: string) {
  const { heads, kvHeads, headDim, window = 0, softcap = 0, alibi = 0 } = shape;
  const batch = starts.length;
  const y: HostTensor = { shape: [batch, tokens, heads * headDim], dtype: 'f32', data: new Float64Array(batch * tokens * heads * headDim) };
  return {
    inputs: [
      r.randn(batch, tokens, (heads + 2 * kvHeads) * headDim),
      { shape: [batch], dtype: 'i32' as const, data: Float64Array.from(starts) },
    ],
    attrs: { heads, kvHeads, headDim, length: shape.length, scale: 1 / Math.sqrt(headDim), window, softcap, alibi },
    outputs: [y, ...caches(r, batch, kvHeads, capacity, headDim)],
    note,
  };
}
