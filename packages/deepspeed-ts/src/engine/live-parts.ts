import { DeepSpeedError } from '@deepspeed-ts/core';
import type { BatchTriad } from '../config/batch.js';
import type { DeepSpeedConfig } from '../config/index.js';
import type { EngineParts } from './parts.js';

/** The parts of a running engine: batch sizes of its config may change between steps, and whoever holds the parts sees it. */
export interface LiveParts extends EngineParts {
  config: DeepSpeedConfig;
}

/**
 * The sizes that follow from another number of samples in a step, micro-batches staying as they are.
 *
 * @throws DeepSpeedError where micro-batches of all ranks don't add up to it
 */
export function withBatchSize({ config, communicator }: EngineParts, samples: number): BatchTriad {
  const { train_micro_batch_size_per_gpu: micro } = config;
  const unit = micro * communicator.size;
  const steps = samples / unit;
  if (!Number.isInteger(steps) || steps < 1) {
    const below = Math.floor(steps) * unit;
    const wayOut = below < unit ? `the smallest is ${unit}` : `the nearest are ${below} and ${below + unit}`;
    throw new DeepSpeedError(
      'ERR_BATCH_SIZE',
      `[setTrainBatchSize] expected a multiple of train_micro_batch_size_per_gpu * ranks = ${micro} * ${communicator.size} = ${unit}, got ${samples}; ${wayOut}`,
    );
  }
  return { train_batch_size: samples, train_micro_batch_size_per_gpu: micro, gradient_accumulation_steps: steps };
}

/** The sizes that follow from another micro-batch, the number of them in a step staying as it is. @throws DeepSpeedError where it is no size */
export function withMicroBatchSize({ config, communicator }: EngineParts, samples: number): BatchTriad {
  const { gradient_accumulation_steps: steps } = config;
  if (!Number.isInteger(samples) || samples < 1)
    throw new DeepSpeedError('ERR_BATCH_SIZE', `[setTrainMicroBatchSize] expected an integer >= 1, got ${samples}`);
  return {
    train_batch_size: samples * steps * communicator.size,
    train_micro_batch_size_per_gpu: samples,
    gradient_accumulation_steps: steps,
  };
}
