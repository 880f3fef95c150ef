import { LayerNorm, RMSNorm } from '@deepspeed-ts/core';
import type { DecoderConfig } from './config.js';

/** The norm of a config over vectors of `size`, by default of the residual stream. */
export function normOf({ norm, dim, normEps }: DecoderConfig, size = dim): LayerNorm | RMSNorm {
  return norm === 'layer' ? new LayerNorm(size, normEps) : new RMSNorm(size, normEps);
}
