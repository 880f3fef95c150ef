import type { FromSchema } from '@deepspeed-ts/core';
import { warmupCosineLR, warmupCosineLRParams } from './cosine.js';
import { oneCycle, oneCycleParams } from './one-cycle.js';
import { lrRangeTest, lrRangeTestParams } from './range-test.js';
import type { Schedule } from './schedule.js';
import { LRScheduler } from './scheduler.js';
import { warmupDecayLR, warmupDecayLRParams, warmupLR, warmupLRParams } from './warmup.js';

export type { Schedule } from './schedule.js';
export { LRScheduler } from './scheduler.js';

/** The `scheduler` key of a config: one alternative per policy, told apart by `type`. */
export const schedulerSchema = {
  type: 'object',
  description: 'Learning-rate policy, stepped after every optimizer step that was applied. Without it the learning rate is constant.',
  discriminator: { propertyName: 'type' },
  oneOf: [
    { properties: { type: { const: 'WarmupLR' }, params: warmupLRParams } },
    { properties: { type: { const: 'WarmupDecayLR' }, params: warmupDecayLRParams } },
    { properties: { type: { const: 'WarmupCosineLR' }, params: warmupCosineLRParams } },
    { properties: { type: { const: 'OneCycle' }, params: oneCycleParams } },
    { properties: { type: { const: 'LRRangeTest' }, params: lrRangeTestParams } },
  ],
} as const;

export type SchedulerConfig = FromSchema<typeof schedulerSchema>;

/** The policy that a config names. */
export function createSchedule(config: SchedulerConfig): Schedule {
  switch (config.type) {
    case 'WarmupLR':
      return warmupLR(config.params);
    case 'WarmupDecayLR':
      return warmupDecayLR(config.params);
    case 'WarmupCosineLR':
      return warmupCosineLR(config.params);
    case 'OneCycle':
      return oneCycle(config.params);
    case 'LRRangeTest':
      return lrRangeTest(config.params);
  }
}

/**
 * A scheduler for the parameter groups of an optimizer.
 *
 * @param baseLrs - The learning rate of each group in the optimizer's settings.
 */
export function createScheduler(config: SchedulerConfig, baseLrs: readonly number[]): LRScheduler {
  return new LRScheduler(createSchedule(config), baseLrs);
}
