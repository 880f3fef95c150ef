import type { Tensor } from '@deepspeed-ts/core';

/** What one optimizer call works on: equal ranges of a unit. All are views; `master` and `states` are updated in place. */
export interface OptimizerRange {
  readonly gradient: Tensor;
  /** f32. */
  readonly master: Tensor;
  /** f32, one for each of `stateNames`. */
  readonly states: readonly Tensor[];
  /** The low-precision copy of `master`, where training is in bf16 or f16. */
  readonly low?: Tensor;
  /** f32 [1]: what gradients are multiplied with first. NaN: leave everything as it is. */
  readonly coefficient: Tensor;
}

/** Settings that every optimizer has, and those that a schedule may move where there are any. */
export interface OptimizerOptions {
  readonly lr: number;
  readonly weightDecay: number;
  readonly betas?: readonly [number, number];
}

/**
 * An elementwise optimizer over flat ranges. `step` must do the same to an element wherever it lies in its range: ranges are cut
 * differently at each stage.
 */
export interface FlatOptimizer<Options> {
  readonly name: string;
  readonly stateNames: readonly string[];
  /** `t` counts the steps that were applied, from 1. */
  step(range: OptimizerRange, options: Options, t: number): void;
}
