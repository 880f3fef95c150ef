import { launch, lionOp } from '@deepspeed-ts/core';
import type { FlatOptimizer, OptimizerOptions } from '../optimizer.js';

export interface LionOptions extends OptimizerOptions {
  readonly betas: readonly [number, number];
}

/** Lion (Chen et al., arXiv:2302.06675): steps of equal size, with weight decay apart from the gradient. */
export const lion: FlatOptimizer<LionOptions> = {
  name: 'lion',
  stateNames: ['exp_avg'],
  step({ gradient, master, states, low, coefficient }, { lr, betas, weightDecay }) {
    const [beta1, beta2] = betas;
    launch(lionOp, [gradient, coefficient], [master, ...states, ...(low ? [low] : [])], { lr, beta1, beta2, weightDecay });
  },
};
