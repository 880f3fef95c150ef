import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { hfSchedule, type ScheduleName } from './schedules.js';

interface Fixture {
  readonly base: number;
  readonly warmup: number;
  readonly total: number;
  readonly schedules: Readonly<
    Record<ScheduleName, { readonly kwargs: Readonly<Record<string, unknown>>; readonly rates: readonly number[] }>
  >;
}

// Written by packages/test-kit/src/trainer/fixtures/make.py.
const fixture = JSON.parse(
  readFileSync(new URL('../../../test-kit/src/trainer/fixtures/hf-schedules.json', import.meta.url), 'utf8'),
) as Fixture;
const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

describe("the rates of Hugging Face's get_scheduler", () => {
  it.each(Object.entries(fixture.schedules))('%s', (name, { kwargs, rates }) => {
    const length = { warmupSteps: fixture.warmup, totalSteps: fixture.total };
    const options = Object.fromEntries(Object.entries(kwargs).map(([key, value]) => [camel(key), value]));
    const schedule = hfSchedule(name as ScheduleName, length, options);
    for (const [step, expected] of rates.entries()) expect(schedule.lr(step - 1, fixture.base), `step ${step}`).toBeCloseTo(expected, 12);
  });
});

it.each<[ScheduleName, object, string]>([
  ['linear', { numCycles: 2 }, "args.lrSchedulerKwargs.numCycles: 'linear' has no such option; it has none"],
  ['cosine', { num_cycles: 2 }, "args.lrSchedulerKwargs.num_cycles: 'cosine' has no such option; did you mean numCycles?"],
  ['cosine', { numCycles: 'many' }, 'args.lrSchedulerKwargs.numCycles: expected a number, got "many"'],
  ['cosine_with_min_lr', {}, "args.lrSchedulerKwargs: 'cosine_with_min_lr' needs one of minLr and minLrRate"],
  [
    'warmup_stable_decay',
    { numDecaySteps: 3, decayType: 'log' },
    'args.lrSchedulerKwargs.decayType: expected linear, cosine, 1-sqrt, got "log"',
  ],
])('%s with %j is refused', (name, options, message) => {
  expect(() => hfSchedule(name, { warmupSteps: 0, totalSteps: 10 }, options as Record<string, unknown>)).toThrow(message);
});
