import { type Batch, type CheckpointedEngine, noGrad, scale, scope } from '@deepspeed-ts/core';
import { TrainerError } from './arguments.js';
import { LossSum } from './loss-sum.js';
import { IGNORED, labelCount } from './token-mean.js';

/** Samples to be judged by, in memory or on the way. */
export type EvalDataset<Sample> =
  | { readonly length: number; get(index: number): Sample | Promise<Sample> }
  | { stream(epoch: number, start: number): Iterable<unknown> | AsyncIterable<unknown>; load?(item: never): Sample | Promise<Sample> };

export interface EvaluateOptions<Sample> {
  /** Samples of a batch of one rank. */
  readonly batchSize: number;
  readonly collate: (samples: readonly Sample[]) => Batch;
}

export interface Evaluation {
  /** Mean over all labels of all samples, in nats. */
  readonly loss: number;
  /** Labels that counted. */
  readonly tokens: number;
  readonly samples: number;
}

/** Losses are read this often, so that a queue of launches does not grow without end. */
const READ_EVERY = 32;

/**
 * The loss over a dataset. Every sample counts once and every token alike, whatever the batch size and the number of ranks. Every rank
 * calls it.
 */
export async function evaluateLoss<Sample>(
  engine: CheckpointedEngine,
  data: EvalDataset<Sample>,
  { batchSize, collate }: EvaluateOptions<Sample>,
): Promise<Evaluation> {
  const { communicator, device } = engine;
  const { rank, size } = communicator;
  const losses = new LossSum(device, communicator);
  const labels = new LossSum(device, communicator);
  let [loss, tokens, samples, batches] = [0, 0, 0, 0];
  try {
    for await (const round of rounds(data, batchSize * size)) {
      samples += round.length;
      const mine = round.slice(rank * batchSize, (rank + 1) * batchSize);
      // A rank that has nothing left takes part all the same: weights are gathered by all.
      const batch = mine.length > 0 ? collate(await Promise.all(mine.map((load) => load()))) : silent(collate([await round[0]!()]));
      const count = mine.length > 0 ? labelCount(batch) : 0;
      noGrad(() =>
        scope(() => {
          using own = engine.evaluate(batch);
          const weighted = scale(own, count);
          losses.add(weighted);
        }),
      );
      tokens += count;
      if (++batches % READ_EVERY === 0) loss += (await losses.take()) * size;
    }
    if (samples === 0) throw new TrainerError('evalDataset: it is empty; expected at least one sample');
    loss += (await losses.take()) * size;
    labels.put(tokens);
    tokens = Math.round((await labels.take()) * size);
  } finally {
    losses.dispose();
    labels.dispose();
  }
  return { loss: tokens === 0 ? Number.NaN : loss / tokens, tokens, samples };
}

/** The same shapes with nothing to say. */
function silent(batch: Batch): Batch {
  const { labels } = batch;
  if (!labels || !('data' in labels)) return batch;
  return { ...batch, labels: { ...labels, data: new Int32Array(labels.data.length).fill(IGNORED) } };
}

/** What all ranks together take next, each sample to be loaded by whoever needs it. */
async function* rounds<Sample>(data: EvalDataset<Sample>, count: number): AsyncGenerator<(() => Sample | Promise<Sample>)[]> {
  if (!('stream' in data)) {
    for (let at = 0; at < data.length; at += count) {
      yield Array.from({ length: Math.min(count, data.length - at) }, (_, i) => () => data.get(at + i));
    }
    return;
  }
  let round: (() => Sample | Promise<Sample>)[] = [];
  for await (const item of data.stream(0, 0)) {
    round.push(() => (data.load ? data.load(item as never) : (item as Sample)));
    if (round.length < count) continue;
    yield round;
    round = [];
  }
  if (round.length > 0) yield round;
}
