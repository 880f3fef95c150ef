import { adagradOp, launch } from '@deepspeed-ts/core';
import type { FlatOptimizer, OptimizerOptions } from '../optimizer.js';

export interface AdagradOptions extends OptimizerOptions {
  readonly eps: number;
  /** The learning rate of step t is lr / (1 + (t - 1) lrDecay). */
  readonly lrDecay: number;
  /** What the sum of squared gradients begins with. */
  readonly initialAccumulatorValue: number;
}

/** Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011), as PyTorch's: weight decay is added to the gradient. */
export const adagrad: FlatOptimizer<AdagradOptions> = {
  name: 'adagrad',
  stateNames: ['sum'],
  step({ gradient, master, states, low, coefficient }, { lr, eps, lrDecay, weightDecay, initialAccumulatorValue }, t) {
    launch(adagradOp, [gradient, coefficient], [master, ...states, ...(low ? [low] : [])], {
      lr: lr / (1 + (t - 1) * lrDecay),
      eps,
      weightDecay,
      initial: t === 1 ? initialAccumulatorValue : 0,
    });
  },
};
