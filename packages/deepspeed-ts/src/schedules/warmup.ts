import type { FromSchema } from '@deepspeed-ts/core';
import { type Schedule, WARMUP_KEYS, warmupProgress } from './schedule.js';

export const warmupLRParams = {
  type: 'object',
  default: {},
  description: 'Rises from warmup_min_lr to warmup_max_lr, then stays there.',
  properties: {
    warmup_min_lr: { type: 'number', minimum: 0, default: 0, description: 'Learning rate of the first step.' },
    warmup_max_lr: {
      type: ['number', 'null'],
      minimum: 0,
      default: null,
      description: 'Learning rate after the warm-up; null takes the lr of the optimizer.',
    },
    ...WARMUP_KEYS,
  },
} as const;

export const warmupDecayLRParams = {
  type: 'object',
  default: {},
  description: 'Rises from warmup_min_lr to warmup_max_lr, then falls on a line back to warmup_min_lr at total_num_steps.',
  required: ['total_num_steps'],
  properties: {
    total_num_steps: { type: 'integer', minimum: 1, description: 'Optimizer steps of the whole training.' },
    warmup_min_lr: { type: 'number', minimum: 0, default: 0, description: 'Learning rate of the first and the last step.' },
    warmup_max_lr: { type: 'number', minimum: 0, default: 0.001, description: 'Learning rate after the warm-up.' },
    ...WARMUP_KEYS,
  },
} as const;

/** Warm-up, then constant. */
export function warmupLR(params: FromSchema<typeof warmupLRParams>): Schedule {
  const { warmup_min_lr: min, warmup_num_steps: steps, warmup_type: type } = params;
  return {
    lr(iteration, baseLr) {
      if (iteration < 0) return min;
      const max = params.warmup_max_lr ?? baseLr;
      return min + (max - min) * (warmupProgress(iteration, steps, type) ?? 1);
    },
  };
}

/** Warm-up, then a line down. */
export function warmupDecayLR(params: FromSchema<typeof warmupDecayLRParams>): Schedule {
  const { total_num_steps: total, warmup_min_lr: min, warmup_max_lr: max, warmup_num_steps: steps, warmup_type: type } = params;
  return {
    lr(iteration) {
      if (iteration < 0) return min;
      const left = Math.max(0, (total - iteration) / Math.max(1, total - Math.max(2, steps)));
      return min + (max - min) * (warmupProgress(iteration, steps, type) ?? left);
    },
  };
}
