import { LayerNorm, RMSNorm } from '@deepspeed-ts/core';
import type { DecoderConfig } from './config.js';

/** The norm of a config over the residual stream. */
export function normOf(config: DecoderConfig): LayerNorm | RMSNorm {
  const { norm, dim, normEps } = config;
  return norm === 'layer' ? new LayerNorm(dim, normEps) : new RMSNorm(dim, normEps, normOffset(config));
}

/** What an RMS norm adds to its weights. */
export function normOffset({ norm }: DecoderConfig): number {
  return norm === 'rms_one' ? 1 : 0;
}
