import { launch, sgdOp } from '@deepspeed-ts/core';
import type { FlatOptimizer, OptimizerOptions } from '../optimizer.js';

export interface SgdOptions extends OptimizerOptions {
  readonly momentum: number;
  /** How much less than whole the gradient enters the momentum, from the second step on. */
  readonly dampening: number;
  readonly nesterov: boolean;
}

/** Gradient descent with momentum, as PyTorch's SGD: weight decay is added to the gradient. */
export const sgd: FlatOptimizer<SgdOptions> = {
  name: 'sgd',
  stateNames: ['momentum_buffer'],
  step({ gradient, master, states, low, coefficient }, { lr, momentum, dampening, nesterov, weightDecay }, t) {
    launch(sgdOp, [gradient, coefficient], [master, ...states, ...(low ? [low] : [])], {
      lr,
      momentum,
      dampening: t === 1 ? 0 : dampening,
      nesterov: Number(nesterov),
      weightDecay,
    });
  },
};

/** The same without momentum, which takes no memory for state. */
export const plainSgd: FlatOptimizer<OptimizerOptions> = {
  name: 'sgd',
  stateNames: [],
  step({ gradient, master, low, coefficient }, { lr, weightDecay }) {
    const attrs = { lr, momentum: 0, dampening: 0, nesterov: 0, weightDecay };
    launch(sgdOp, [gradient, coefficient], [master, ...(low ? [low] : [])], attrs);
  },
};
