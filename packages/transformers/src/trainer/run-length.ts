import type { ResolvedArguments } from './arguments.js';

/** The sizes of a step. */
export interface StepSizes {
  /** Samples of a micro-batch of one rank. */
  readonly micro: number;
  /** Micro-batches of a step, fewer at the end of an epoch. */
  readonly accumulation: number;
  readonly ranks: number;
  /** Leave out the end of an epoch that does not fill a micro-batch on every rank. */
  readonly dropLast: boolean;
}

/** How long a training is. */
export interface RunLength {
  /** Micro-batches of a rank and steps in an epoch; `undefined` for data whose length nobody knows. */
  readonly batchesPerEpoch: number | undefined;
  readonly stepsPerEpoch: number | undefined;
  readonly totalSteps: number;
  readonly warmupSteps: number;
  readonly epochs: number;
}

/**
 * Counts as Hugging Face does: a step never crosses the end of an epoch, the last one has what micro-batches are left. `undefined` where
 * nobody can say: data without a length, and no maxSteps.
 *
 * @param samples - Of an epoch, where that is known.
 */
export function runLength(
  args: ResolvedArguments,
  samples: number | undefined,
  { micro, accumulation, ranks, dropLast }: StepSizes,
): RunLength | undefined {
  const whole = dropLast ? Math.floor : Math.ceil;
  const batchesPerEpoch = samples === undefined ? undefined : whole(samples / (micro * ranks));
  const stepsPerEpoch = batchesPerEpoch === undefined ? undefined : Math.max(1, Math.ceil(batchesPerEpoch / accumulation));
  if (args.maxSteps < 0 && stepsPerEpoch === undefined) return undefined;
  const totalSteps = args.maxSteps > 0 ? args.maxSteps : Math.ceil(args.numTrainEpochs * stepsPerEpoch!);
  const epochs = args.maxSteps < 0 ? args.numTrainEpochs : stepsPerEpoch === undefined ? 1 : Math.ceil(totalSteps / stepsPerEpoch);
  return { batchesPerEpoch, stepsPerEpoch, totalSteps, warmupSteps: warmupSteps(args, totalSteps), epochs };
}

function warmupSteps({ warmupSteps: steps, warmupRatio }: ResolvedArguments, total: number): number {
  if (warmupRatio !== null) return Math.ceil(total * warmupRatio);
  return steps >= 1 ? Math.floor(steps) : Math.ceil(total * steps);
}

/** Steps between two of something: as given, or a share of all steps. */
export function interval(steps: number, total: number): number {
  return steps < 1 ? Math.ceil(total * steps) : steps;
}
