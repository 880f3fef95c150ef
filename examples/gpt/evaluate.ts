import { type DeepSpeedEngine, empty, tensor, unscoped } from 'deepspeed-ts';
import { validationStarts, windowsAt } from './windows.js';

/** Mean loss over the validation windows, in nats a token, the same on every rank. Every rank calls it and judges its share. */
export async function validate(
  engine: DeepSpeedEngine,
  tokens: Uint16Array,
  { context, batch }: { context: number; batch: number },
): Promise<number> {
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

/** Highest memory use of every rank so far, in MiB. Every rank calls it. */
export async function memoryPerRank({ communicator, device }: DeepSpeedEngine): Promise<number[]> {
  const [mine, all] = unscoped(() => [
    tensor(device, [device.backend.memory().peak / 2 ** 20], 'f32'),
    empty(device, [communicator.size], 'f32'),
  ]);
  try {
    communicator.allGather(all!, mine!).wait();
    return Array.from((await all!.read()).data, (mib) => Math.round(mib * 10) / 10);
  } finally {
    mine!.dispose();
    all!.dispose();
  }
}
