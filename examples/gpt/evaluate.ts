import type { DeepSpeedEngine } from 'deepspeed-ts';
import { validationStarts, windowsAt } from './windows.js';

/** Mean loss over the validation windows, in nats a token, the same on every rank. Every rank calls it and judges its share. */
export async function validate(engine: DeepSpeedEngine, tokens: Uint16Array, options: { context: number; batch: number }): Promise<number> {
  const { context, batch } = options;
  const starts = validationStarts(tokens.length, context, engine.worldSize);
  const mine = starts.filter((_, i) => i % engine.worldSize === engine.rank);
  let sum = 0;
  for (let at = 0; at < mine.length; at += batch) {
    const part = mine.slice(at, at + batch);
    // Ranks have equally many windows in each part, so the mean of their means is the mean.
    sum += (await engine.evalBatch(windowsAt(tokens, part, context))) * part.length;
  }
  return sum / mine.length;
}
