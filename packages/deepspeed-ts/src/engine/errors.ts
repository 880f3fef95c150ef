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
        (applied
          ? 'its gradients were finite and the step was applied. '
          : `the step was not applied on any rank, the weights are those of step ${step - 1}. `) +
        'Lower the learning rate, lengthen the warm-up or lower gradient_clipping, and look for bad values in the batch',
    );
  }
}

/** Gradients overflow in float16 even at the smallest loss scale. The weights are those of before the step. */
export class LossScaleError extends DeepSpeedError {
  constructor(
    readonly rank: number,
    readonly step: number,
    readonly scale: number,
  ) {
    super(
      'ERR_LOSS_SCALE',
      `rank ${rank}: the gradients of step ${step} overflow though the loss scale is at its minimum, ${scale}; no rank applied the step. ` +
        'Look for a NaN in the loss or the batch, lower the learning rate or fp16.min_loss_scale, or train in bf16, which needs no loss scale',
    );
  }
}
