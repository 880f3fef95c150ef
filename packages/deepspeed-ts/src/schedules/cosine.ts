import type { FromSchema } from '@deepspeed-ts/core';
import { type Schedule, WARMUP_KEYS, warmupProgress } from './schedule.js';

export const warmupCosineLRParams = {
  type: 'object',
  default: {},
  description: "Rises from warmup_min_ratio to 1 times the optimizer's lr, then falls on half a cosine to cos_min_ratio.",
  required: ['total_num_steps'],
  properties: {
    total_num_steps: { type: 'integer', minimum: 1, description: 'Optimizer steps of the whole training.' },
    warmup_min_ratio: { type: 'number', minimum: 0, default: 0, description: 'Where the warm-up starts, as a ratio of the lr.' },
    cos_min_ratio: { type: 'number', minimum: 0, default: 0.0001, description: 'Where the cosine ends, as a ratio of the lr.' },
    ...WARMUP_KEYS,
  },
} as const;

/**
 * Warm-up, then half a cosine down to a floor (SGDR without restarts, https://arxiv.org/abs/1608.03983).
 * The optimizer step before the first `step()` runs at learning rate 0, whatever warmup_min_ratio says, as in DeepSpeed.
 */
export function warmupCosineLR(params: FromSchema<typeof warmupCosineLRParams>): Schedule {
  const { total_num_steps: total, warmup_min_ratio: start, cos_min_ratio: floor, warmup_num_steps: steps, warmup_type: type } = params;
  return {
    lr(iteration, baseLr) {
      if (iteration < 0) return 0;
      const warmup = warmupProgress(iteration, steps, type);
      if (warmup !== undefined) return baseLr * (start + warmup * (1 - start));
      const length = Math.max(2, steps);
      const progress = Math.min(1, (iteration - length + 1) / Math.max(1, total - length));
      return baseLr * Math.max(0, floor + (1 - floor) * ((1 + Math.cos(Math.PI * progress)) / 2));
    },
  };
}
