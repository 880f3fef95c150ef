import type { TokenBatch } from './tokenizer.js';

/** Rows of `length` tokens, filled up with `padTokenId` on one side. */
export function padRows(rows: readonly (readonly number[])[], length: number, side: 'left' | 'right', padTokenId: number): TokenBatch {
  const shape = [rows.length, length] as const;
  const [ids, mask, positions] = [0, 1, 2].map(() => new Int32Array(rows.length * length)) as [Int32Array, Int32Array, Int32Array];
  ids.fill(padTokenId);
  for (const [row, tokens] of rows.entries()) {
    const first = row * length + (side === 'left' ? length - tokens.length : 0);
    ids.set(tokens, first);
    mask.fill(1, first, first + tokens.length);
    for (let i = 0; i < tokens.length; i++) positions[first + i] = i;
  }
  return { inputIds: { data: ids, shape }, attentionMask: { data: mask, shape }, positionIds: { data: positions, shape } };
}
