import { type JsonRecord, type ResolvedArguments, TrainerError } from './arguments.js';
import type { CallbackContext, TrainerCallback, TrainerControl } from './callbacks.js';
import type { TrainerState } from './state.js';

export interface EarlyStoppingOptions {
  /** Evaluations without improvement after which training ends. Default 1. */
  readonly earlyStoppingPatience?: number;
  /** How much better counts as better. Default 0. */
  readonly earlyStoppingThreshold?: number;
}

/** Ends the training when `metricForBestModel` has not become better for some evaluations. */
export class EarlyStoppingCallback implements TrainerCallback {
  readonly #patience: number;
  readonly #threshold: number;
  #worse = 0;

  constructor({ earlyStoppingPatience = 1, earlyStoppingThreshold = 0 }: EarlyStoppingOptions = {}) {
    this.#patience = earlyStoppingPatience;
    this.#threshold = earlyStoppingThreshold;
  }

  onTrainBegin(args: ResolvedArguments): void {
    if (args.metricForBestModel === null)
      throw new TrainerError('EarlyStoppingCallback: args.metricForBestModel is missing, or loadBestModelAtEnd, which makes it the loss');
    if (args.evalStrategy === 'no') throw new TrainerError("EarlyStoppingCallback: args.evalStrategy is 'no'; expected 'steps' or 'epoch'");
  }

  onEvaluate(args: ResolvedArguments, state: TrainerState, control: TrainerControl, { metrics }: CallbackContext): void {
    const value = metrics?.[metricName(args)!];
    if (value === undefined) return;
    const gain = args.greaterIsBetter
      ? value - (state.bestMetric ?? Number.NEGATIVE_INFINITY)
      : (state.bestMetric ?? Number.POSITIVE_INFINITY) - value;
    this.#worse = gain > this.#threshold ? 0 : this.#worse + 1;
    if (this.#worse >= this.#patience) control.shouldTrainingStop = true;
  }

  readonly state = (): JsonRecord => ({ worse: this.#worse });
  readonly restore = ({ worse }: JsonRecord): void => {
    this.#worse = worse as number;
  };
}

/** The metric that decides which checkpoint is best, under the name that evaluation gives it. */
export function metricName({ metricForBestModel: name }: ResolvedArguments): string | undefined {
  if (name === null) return undefined;
  return name.startsWith('eval_') ? name : `eval_${name}`;
}
