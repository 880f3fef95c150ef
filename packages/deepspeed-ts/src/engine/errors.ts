import { DeepSpeedError } from '@deepspeed-ts/core';

/** A loss or gradient became NaN or infinite. The weights are those of before the step. */
export class NonFiniteError extends DeepSpeedError {
  constructor(
    readonly rank: number,
    readonly step: number,
    readonly what: 'loss' | 'gradient norm',
    readonly value: number,
  ) {
    super(
      'ERR_NON_FINITE',
      `rank ${rank}: the ${what} of step ${step} is ${value}; the step was not applied on any rank, the weights are those of step ${step - 1}. ` +
        'Lower the learning rate, lengthen the warm-up or lower gradient_clipping, and look for bad values in the batch',
    );
  }
}
