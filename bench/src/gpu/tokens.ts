import { uniforms } from '@deepspeed-ts/core';
import type { Batch } from 'deepspeed-ts';

/** How many tokens may follow a token: a model that has learned everything has a loss of its logarithm. */
const FOLLOWERS = 4;
/** How many different tokens there are at most, so that a short run sees each of them often. */
const KNOWN = 1000;

/**
 * Random text that can be learned: every token has its own four followers. Row `r` of batch `index` is i32 [seq + 1]; the labels are the
 * tokens one further.
 */
export function learnableBatch(vocabulary: number, batch: number, seq: number, index: number): Batch {
  const vocab = Math.min(vocabulary, KNOWN);
  const draws = uniforms({ seed: 77, step: index }, 0, batch * (seq + 1));
  const tokens = new Int32Array(batch * (seq + 1));
  for (let i = 0; i < tokens.length; i++) {
    const draw = draws[i]!;
    const begins = i % (seq + 1) === 0;
    tokens[i] = begins ? Math.floor(draw * vocab) : follower(tokens[i - 1]!, Math.floor(draw * FOLLOWERS), vocab);
  }
  return shifted(tokens, batch, seq);
}

/** Splits rows of seq + 1 tokens into inputs and labels, i32 [batch, seq] each. */
export function shifted(tokens: Int32Array, batch: number, seq: number): Batch {
  const rows = (shift: number) => {
    const data = new Int32Array(batch * seq);
    for (let b = 0; b < batch; b++) data.set(tokens.subarray(b * (seq + 1) + shift, b * (seq + 1) + shift + seq), b * seq);
    return { data, shape: [batch, seq] };
  };
  return { inputIds: rows(0), labels: rows(1) };
}

function follower(token: number, which: number, vocab: number): number {
  return (Math.imul(token * FOLLOWERS + which + 1, 2654435761) >>> 0) % vocab;
}
