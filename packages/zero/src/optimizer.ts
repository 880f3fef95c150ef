import { adamwOp, launch, type Tensor } from '@deepspeed-ts/core';

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

/**
 * An elementwise optimizer over flat ranges. `step` must do the same to an element wherever it lies in its range: ranges are cut
 * differently at each stage.
 */
export interface FlatOptimizer<Options> {
  readonly name: string;
  readonly stateNames: readonly string[];
  /** `t` counts steps from 1. */
  step(range: OptimizerRange, options: Options, t: number): void;
}

export interface AdamOptions {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  /** AdamW (true) decays weights apart from the gradient; Adam adds an L2 term to it. */
  readonly decoupled: boolean;
  readonly biasCorrection: boolean;
}

/** Adam (Kingma and Ba, arXiv:1412.6980) and AdamW (Loshchilov and Hutter, arXiv:1711.05101). */
export const adam: FlatOptimizer<AdamOptions> = {
  name: 'adam',
  stateNames: ['exp_avg', 'exp_avg_sq'],
  step({ gradient, master, states, low, coefficient }, { lr, betas, eps, weightDecay, decoupled, biasCorrection }, t) {
    const [beta1, beta2] = betas;
    launch(adamwOp, [gradient, coefficient], [master, ...states, ...(low ? [low] : [])], {
      lr,
      beta1,
      beta2,
      eps,
      weightDecay,
      bias1: biasCorrection ? 1 - beta1 ** t : 1,
      bias2: biasCorrection ? 1 - beta2 ** t : 1,
      decoupled: Number(decoupled),
    });
  },
};
