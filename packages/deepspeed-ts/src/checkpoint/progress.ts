import type { DeepSpeedConfig } from '../config/index.js';
import { CheckpointError } from './error.js';
import type { Progress } from './manifest.js';

/** The engine's counters. */
export interface Counters {
  readonly globalSteps: number;
  /** Samples of all ranks in finished steps. */
  readonly globalSamples: number;
  readonly microSteps: number;
  /** Those of the running step. */
  readonly microInStep: number;
  /** Whether a micro-batch has run backward and not ended yet. */
  readonly betweenBackwardAndStep: boolean;
  readonly skippedSteps: number;
  /** What the loss was multiplied with in the micro-batches of the running step, if there were any. */
  readonly backwardScale: number | undefined;
  readonly seed: number;
}

export function progressOf(counters: Counters, config: DeepSpeedConfig, ranks: number): Progress {
  const { globalSteps, globalSamples, microSteps, microInStep, skippedSteps, backwardScale, seed } = counters;
  return {
    global_steps: globalSteps,
    global_samples: globalSamples,
    micro_steps: microSteps - microInStep,
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
export function countersOf(
  progress: Progress & { world_size: number },
  config: DeepSpeedConfig,
  ranks: number,
  gradients: boolean,
  path: string,
): Counters {
  const { global_steps, samples_in_step, train_batch_size, skipped_steps, backward_scale, seed } = progress;
  // Another number of ranks sees the same samples in another number of micro-batches.
  const sameRanks = progress.micro_steps !== undefined && progress.world_size === ranks;
  const microSteps = sameRanks ? progress.micro_steps! : global_steps * config.gradient_accumulation_steps;
  const counters: Counters = {
    globalSteps: global_steps,
    globalSamples: progress.global_samples ?? global_steps * train_batch_size,
    microSteps,
    microInStep: 0,
    betweenBackwardAndStep: false,
    skippedSteps: skipped_steps,
    backwardScale: undefined,
    seed,
  };
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
  return { ...counters, microSteps: microSteps + micro, microInStep: micro, backwardScale: backward_scale ?? undefined };
}
