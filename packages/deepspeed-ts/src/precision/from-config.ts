import type { FloatDType } from '@deepspeed-ts/core';
import type { DeepSpeedConfig } from '../config/index.js';
import { DynamicLossScaler, fixedLossScale, type LossScaler } from './loss-scaler.js';

type PrecisionConfig = Pick<DeepSpeedConfig, 'bf16' | 'fp16' | 'data_types'>;

const dtypes = { fp32: 'f32', bf16: 'bf16', fp16: 'f16' } as const;

export interface Dtypes {
  /** Of weights and activations. */
  readonly dtype: FloatDType;
  readonly gradientDtype: FloatDType;
  readonly masterDtype: 'f32' | 'bf16';
  /** Of optimizer states. */
  readonly stateDtype: 'f32' | 'bf16';
}

export function dtypesOf({ bf16, fp16, data_types }: PrecisionConfig): Dtypes {
  const dtype = bf16.enabled ? 'bf16' : fp16.enabled ? 'f16' : 'f32';
  return {
    dtype,
    gradientDtype: data_types.grad_accum_dtype ? dtypes[data_types.grad_accum_dtype] : dtype,
    masterDtype: bf16.bf16_master_weights_and_grads ? 'bf16' : 'f32',
    stateDtype: bf16.bf16_optimizer_states ? 'bf16' : 'f32',
  };
}

/** What the loss is multiplied with before backward: 1 but for float16. */
export function lossScalerOf({ fp16 }: PrecisionConfig): LossScaler {
  if (!fp16.enabled) return fixedLossScale(1);
  if (fp16.loss_scale > 0) return fixedLossScale(fp16.loss_scale);
  return new DynamicLossScaler({
    initialScalePower: fp16.initial_scale_power,
    window: fp16.loss_scale_window,
    hysteresis: fp16.hysteresis,
    consecutiveHysteresis: fp16.consecutive_hysteresis,
    minScale: fp16.min_loss_scale,
  });
}

/** Whether a step whose gradient is not finite is skipped, rather than an error. */
export function skipsOverflow({ bf16, fp16 }: PrecisionConfig): boolean {
  return fp16.enabled || (bf16.enabled && bf16.check_grad_overflow);
}
