import type { DeepSpeedConfig } from '../config/index.js';
import { CheckpointError } from './error.js';
import type { Progress } from './manifest.js';

/** The engine's counters. */
export interface Counters {
  readonly globalSteps: number;
  readonly microSteps: number;
  readonly skippedSteps: number;
  /** What the loss was multiplied with in the micro-batches of the running step, if there were any. */
  readonly backwardScale: number | undefined;
  readonly seed: number;
}

export function progressOf(
  { globalSteps, microSteps, skippedSteps, backwardScale, seed }: Counters,
  config: DeepSpeedConfig,
  ranks: number,
): Progress {
  const microInStep = microSteps % config.gradient_accumulation_steps;
  return {
    global_steps: globalSteps,
    samples_in_step: microInStep * config.train_micro_batch_size_per_gpu * ranks,
    train_batch_size: config.train_batch_size,
    skipped_steps: skippedSteps,
    backward_scale: backwardScale ?? null,
    seed,
  };
}

/**
 * The counters to go on with. In the middle of a step the samples that it has seen are what counts, so that another number of ranks or
 * another micro-batch can finish it, given the same batch size. Without gradients the step begins anew.
 */
export function countersOf(progress: Progress, config: DeepSpeedConfig, ranks: number, gradients: boolean, path: string): Counters {
  const { global_steps, samples_in_step, train_batch_size, skipped_steps, backward_scale, seed } = progress;
  const microSteps = global_steps * config.gradient_accumulation_steps;
  const counters = { globalSteps: global_steps, microSteps, skippedSteps: skipped_steps, backwardScale: undefined, seed };
  if (samples_in_step === 0 || !gradients) return counters;
  const micro = samples_in_step / (config.train_micro_batch_size_per_gpu * ranks);
  if (config.train_batch_size !== train_batch_size || !Number.isInteger(micro)) {
    const got = `train_batch_size ${config.train_batch_size} in micro-batches of ${config.train_micro_batch_size_per_gpu} on ${ranks} ranks`;
    throw new CheckpointError(
      'ERR_CHECKPOINT_MISMATCH',
      `${path} was saved in the middle of a step, after ${samples_in_step} of ${train_batch_size} samples: expected micro-batches that divide both, got ${got}. Resume with the same batch size, or load with { optimizer: false } to begin the step anew`,
      path,
    );
  }
  return { ...counters, microSteps: microSteps + micro, backwardScale: backward_scale ?? undefined };
}
