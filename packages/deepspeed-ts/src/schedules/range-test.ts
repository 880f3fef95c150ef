import type { FromSchema } from '@deepspeed-ts/core';
import type { Schedule } from './schedule.js';

export const lrRangeTestParams = {
  type: 'object',
  default: {},
  description: 'Rises without end, to find the learning rate at which training breaks.',
  properties: {
    lr_range_test_min_lr: { type: 'number', minimum: 0, default: 0.001, description: 'Learning rate of the first step.' },
    lr_range_test_step_size: { type: 'integer', minimum: 1, default: 2000, description: 'Steps in which the rate rises once.' },
    lr_range_test_step_rate: { type: 'number', default: 1, description: 'By how many times the minimum it rises.' },
    lr_range_test_staircase: { type: 'boolean', default: false, description: 'Rise at once instead of on a line.' },
  },
} as const;

/** The learning-rate range test of Smith, https://arxiv.org/abs/1803.09820. */
export function lrRangeTest(params: FromSchema<typeof lrRangeTestParams>): Schedule {
  return {
    lr(iteration) {
      const interval = (iteration + 1) / params.lr_range_test_step_size;
      const risen = params.lr_range_test_staircase ? Math.floor(interval) : interval;
      return params.lr_range_test_min_lr * (1 + params.lr_range_test_step_rate * risen);
    },
  };
}
