import type { LearningRates } from '@deepspeed-ts/core';

/** Adam's (beta1, beta2). */
export type Betas = readonly [number, number];

/**
 * A learning-rate policy: a pure function of the iteration. Iteration -1 is the state before the first `step()`, which the first
 * optimizer step runs with; after k calls of `step()` the iteration is k - 1.
 */
export interface Schedule extends LearningRates {
  /** Set by policies that also cycle the momentum. */
  betas?(iteration: number): Betas;
}

/** How far a warm-up has come at `iteration` >= 0, from 0 to 1; `undefined` once it is over. */
export function warmupProgress(iteration: number, steps: number, type: 'log' | 'linear'): number | undefined {
  // Fewer than two steps would divide by log(1) = 0; DeepSpeed rounds up too.
  const length = Math.max(2, steps);
  if (iteration >= length) return undefined;
  return type === 'log' ? (1 / Math.log(length)) * Math.log(iteration + 1) : iteration / length;
}

/** The keys that every warm-up takes. */
export const WARMUP_KEYS = {
  warmup_num_steps: {
    type: 'integer',
    minimum: 1,
    default: 1000,
    description: 'Steps of the warm-up; 1 counts as 2.',
  },
  warmup_type: {
    type: 'string',
    enum: ['log', 'linear'],
    default: 'log',
    description: 'How the learning rate rises: log(i + 1) / log(warmup_num_steps) or i / warmup_num_steps.',
  },
} as const;
