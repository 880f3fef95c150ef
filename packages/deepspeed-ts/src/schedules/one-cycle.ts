import type { FromSchema } from '@deepspeed-ts/core';
import type { Schedule } from './schedule.js';

export const oneCycleParams = {
  type: 'object',
  default: {},
  description: 'Up from cycle_min_lr to cycle_max_lr and down again, the momentum the other way round; then an optional decay.',
  required: ['cycle_min_lr', 'cycle_max_lr'],
  properties: {
    cycle_min_lr: { type: 'number', minimum: 0, description: 'Learning rate at both ends of the cycle.' },
    cycle_max_lr: { type: 'number', minimum: 0, description: 'Learning rate at the top of the cycle.' },
    decay_lr_rate: {
      type: 'number',
      minimum: 0,
      default: 0,
      description: 'Decay after the cycle: lr = cycle_min_lr / (1 + rate * intervals).',
    },
    cycle_first_step_size: { type: 'integer', minimum: 1, default: 2000, description: 'Steps of the way up.' },
    cycle_second_step_size: {
      type: ['integer', 'null'],
      minimum: 1,
      default: null,
      description: 'Steps of the way down; null for as many as up.',
    },
    cycle_first_stair_count: { type: 'integer', minimum: 0, default: 0, description: 'Stairs of the way up; 0 for a line.' },
    cycle_second_stair_count: {
      type: ['integer', 'null'],
      minimum: 0,
      default: null,
      description: 'Stairs of the way down; null for as many as up.',
    },
    decay_step_size: { type: 'integer', minimum: 0, default: 0, description: 'Steps of one interval of the decay; 0 for no decay.' },
    cycle_momentum: { type: 'boolean', default: true, description: 'Cycle beta1 too; beta2 is then 0.99.' },
    cycle_min_mom: { type: 'number', minimum: 0, default: 0.8, description: 'beta1 at the top of the cycle.' },
    cycle_max_mom: { type: 'number', minimum: 0, default: 0.9, description: 'beta1 at both ends of the cycle.' },
    decay_mom_rate: { type: 'number', minimum: 0, default: 0, description: 'Growth of beta1 after the cycle, per interval.' },
  },
} as const;

/** The 1cycle policy of Smith, https://arxiv.org/abs/1803.09820. */
export function oneCycle(params: FromSchema<typeof oneCycleParams>): Schedule {
  const { cycle_min_lr: minLr, cycle_max_lr: maxLr, cycle_min_mom: minMom, cycle_max_mom: maxMom } = params;
  const up = params.cycle_first_step_size;
  const down = params.cycle_second_step_size ?? up;
  const total = up + down;
  const upStairs = params.cycle_first_stair_count;
  const downStairs = params.cycle_second_stair_count ?? upStairs;

  /** Height in the cycle: 0 at its ends, 1 at its top. */
  function height(iteration: number): number {
    const at = (iteration + 1) % total;
    const rising = at <= up;
    const stairs = rising ? upStairs : downStairs;
    // Stairs are counted from whole steps: the height in floating point may lie a hair under the stair it has reached.
    if (stairs > 0) return Math.floor(((rising ? at : total - at) * stairs) / (rising ? up : down)) / stairs;
    return rising ? at / up : (total - at) / down;
  }

  /** Decay intervals since the end of the cycle. */
  const decayed = (iteration: number) => (params.decay_step_size === 0 ? 0 : (iteration - total + 1) / params.decay_step_size);

  const schedule: Schedule = {
    lr(iteration) {
      if (iteration < 0) return minLr;
      if (iteration < total) return minLr + (maxLr - minLr) * height(iteration);
      return minLr / (1 + params.decay_lr_rate * decayed(iteration));
    },
  };
  if (!params.cycle_momentum) return schedule;
  return {
    ...schedule,
    betas(iteration) {
      // Before the first step DeepSpeed starts from the minimum, not from the value at the bottom of the cycle.
      if (iteration < 0) return [minMom, 0.99];
      if (iteration < total) return [maxMom - (maxMom - minMom) * height(iteration), 0.99];
      return [maxMom * (1 + params.decay_mom_rate * decayed(iteration)), 0.99];
    },
  };
}
