import { type Device, ShapeError, type Tensor, tensor } from '@deepspeed-ts/core';

/** Positions 0 .. tokens - 1 of every sequence, i32 [batch, tokens]. The last shape on each device is kept; its owner disposes it. */
export class PositionIds {
  readonly #kept = new Map<Device, Tensor>();

  on(device: Device, batch: number, tokens: number): Tensor {
    const kept = this.#kept.get(device);
    if (kept && kept.shape[0] === batch && kept.shape[1] === tokens) return kept;
    kept?.dispose();
    const values = Int32Array.from({ length: batch * tokens }, (_, i) => i % tokens);
    const ids = tensor(device, values, 'i32', [batch, tokens], { kind: 'data' }).keep();
    this.#kept.set(device, ids);
    return ids;
  }

  dispose(): void {
    for (const ids of this.#kept.values()) ids.dispose();
    this.#kept.clear();
  }
}

/**
 * Positions of a row of `tokens` tokens that holds documents of these lengths one after another: 0, 1, .. in each. What is left of
 * the row is one more, of padding. Throws a ShapeError for lengths that are no positive integers or exceed the row.
 */
export function documentPositions(lengths: readonly number[], tokens: number): Int32Array {
  const total = lengths.reduce((a, b) => a + b, 0);
  if (!lengths.every((length) => Number.isInteger(length) && length > 0) || total > tokens) {
    const got = `[${lengths.join(', ')}], ${total} in all`;
    throw new ShapeError('documentPositions', `positive lengths of documents that fit into a row of ${tokens} tokens`, got);
  }
  const positions = new Int32Array(tokens);
  let start = 0;
  for (const length of total < tokens ? [...lengths, tokens - total] : lengths) {
    for (let i = 0; i < length; i++) positions[start + i] = i;
    start += length;
  }
  return positions;
}
