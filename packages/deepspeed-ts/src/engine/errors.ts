import { DeepSpeedError } from '@deepspeed-ts/core';

/** A loss or gradient became NaN or infinite. Where gradients did, which is nearly always, no rank applied the step. */
export class NonFiniteError extends DeepSpeedError {
  constructor(
    readonly rank: number,
    readonly step: number,
    readonly what: 'loss' | 'gradient norm',
    readonly value: number,
    /** Whether the gradients were finite all the same, and the step was taken. */
    readonly applied: boolean,
  ) {
    super(
      'ERR_NON_FINITE',
      `rank ${rank}: the ${what} of step ${step} is ${value}; ` +
        (applied ? 'its gradients were finite and the step was applied. ' : `the step was not applied on any rank, the weights are those of step ${step - 1}. `) +
        'Lower the learning rate, lengthen the warm-up or lower gradient_clipping, and look for bad values in the batch',
    );
  }
}
