import type { ScalarEvent } from './monitors/monitor.js';
import type { PhaseTimes } from './step-times.js';

/** What monitors are told of a step. */
export interface StepFacts {
  /** Samples of all ranks so far, this step's included. */
  readonly samples: number;
  readonly loss: number;
  readonly lr: number;
  /** fp16 only. */
  readonly lossScale?: number;
  /** With `wall_clock_breakdown` only. */
  readonly times?: PhaseTimes;
}

/** Under the names that DeepSpeed gives them. */
export function monitorEvents({ samples, loss, lr, lossScale, times }: StepFacts): ScalarEvent[] {
  const values: Record<string, number | undefined> = {
    train_loss: loss,
    lr,
    loss_scale: lossScale,
    elapsed_time_ms_forward: times?.forward,
    elapsed_time_ms_backward: times?.backward,
    elapsed_time_ms_step: times?.step,
  };
  return Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [{ name: `Train/Samples/${name}`, value, samples }],
  );
}
