import { type Batch, type CheckpointedEngine, div, full, scale, scope, type Tensor } from '@deepspeed-ts/core';
import type { LossSum } from './loss-sum.js';

/** Labels of this value count for nothing. */
export const IGNORED = -100;

/** Labels of a micro-batch that count; 1 for a batch without labels, whose loss is one thing. */
export function labelCount({ labels }: Batch): number {
  if (!labels || !('data' in labels)) return 1;
  let count = 0;
  for (const label of labels.data) if (label !== IGNORED) count++;
  return count;
}

/**
 * A step over micro-batches of any numbers of tokens: its loss is the mean over all labels of all its micro-batches on all ranks, not the
 * mean of their means, in which a token of a short answer would count more than one of a long answer. A model gives the mean m over the n
 * labels of a micro-batch. With N labels in the step on all R ranks, its gradients being averaged over ranks, m n R / N is what each
 * backward pass begins with. N stays on the device: no rank waits for a number.
 */
export async function tokenMeanStep(engine: CheckpointedEngine, batches: readonly Batch[], losses: LossSum): Promise<void> {
  const counts = batches.map(labelCount);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const mean = meanOverRanks(engine, total);
  try {
    for (const [i, batch] of batches.entries()) {
      engine.setGradientAccumulationBoundary(i === batches.length - 1);
      const loss = engine.forward(batch);
      scope(() => {
        const share = mean ? scale(div(loss, mean), counts[i]!) : shareOf(loss, counts[i]!, total);
        losses.add(share);
        engine.backward(share, { scaleWrtGas: false });
      });
      await engine.step();
    }
  } finally {
    mean?.dispose();
    engine.setGradientAccumulationBoundary(undefined);
  }
}

function shareOf(loss: Tensor, count: number, total: number): Tensor {
  return count === total ? loss : scale(loss, count / total);
}

/** N / R, f32 []; `undefined` for a world of one, which knows it. */
function meanOverRanks({ communicator, device }: CheckpointedEngine, total: number): Tensor | undefined {
  if (communicator.size === 1) return undefined;
  // A step without any label at all has a loss of 0, not 0 / 0.
  const mean = full(device, [], 'f32', Math.max(total, 1e-6)).keep();
  communicator.allReduce(mean, 'mean', 'labels').wait();
  return mean;
}
