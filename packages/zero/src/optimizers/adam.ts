import { adamwOp, launch } from '@deepspeed-ts/core';
import type { FlatOptimizer, OptimizerOptions } from '../optimizer.js';

export interface AdamOptions extends OptimizerOptions {
  readonly betas: readonly [number, number];
  readonly eps: number;
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
