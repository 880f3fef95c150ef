import { existsSync, readFileSync } from 'node:fs';
import { composeConfig, defineSection } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { createScheduler, LRScheduler, schedulerSchema } from './index.js';

interface Golden {
  type: string;
  params: Record<string, unknown>;
  base_lr: number;
  lr_after_step: number[];
  betas_after_step: [number, number][];
}

const GOLDEN = new URL('../../../../../shared/golden/lr-schedules.json', import.meta.url);
const golden: Golden[] = existsSync(GOLDEN) ? JSON.parse(readFileSync(GOLDEN, 'utf8')) : [];

const section = defineSection({ name: 'Scheduler', summary: '', properties: { scheduler: schedulerSchema } });
const scheduler = (type: string, params: object, baseLr = 1e-3) =>
  createScheduler(composeConfig([section], { scheduler: { type, params } }).scheduler!, [baseLr]);

describe('learning-rate schedules', () => {
  it.skipIf(golden.length === 0)(
    'equal those of DeepSpeed 0.19.6 at each of 60 steps (needs the golden values beside the repository)',
    () => {
      for (const { type, params, base_lr, lr_after_step, betas_after_step } of golden) {
        const ours = scheduler(type, params, base_lr);
        lr_after_step.forEach((expected, i) => {
          ours.step();
          const [lr] = ours.lr as [number];
          expect(Math.abs(lr - expected), `${type} ${JSON.stringify(params)} lr at step ${i}: ${lr} vs ${expected}`).toBeLessThanOrEqual(
            1e-14 * expected,
          );
          const betas = ours.betas ?? [0.9, 0.999];
          for (const j of [0, 1]) expect(betas[j]).toBeCloseTo(betas_after_step[i]![j]!, 14);
        });
      }
    },
  );

  it('start from the state before the first step, as the first optimizer step sees it', () => {
    expect(scheduler('WarmupLR', { warmup_min_lr: 1e-5 }).lr).toEqual([1e-5]);
    expect(scheduler('WarmupDecayLR', { warmup_min_lr: 1e-5, total_num_steps: 10 }).lr).toEqual([1e-5]);
    expect(scheduler('WarmupCosineLR', { warmup_min_ratio: 0.1, total_num_steps: 10 }).lr).toEqual([0]);
    expect(scheduler('LRRangeTest', { lr_range_test_min_lr: 1e-4 }).lr).toEqual([1e-4]);
    const cycle = scheduler('OneCycle', { cycle_min_lr: 1e-4, cycle_max_lr: 1e-2 });
    expect([cycle.lr, cycle.betas]).toEqual([[1e-4], [0.8, 0.99]]);
  });

  it('warm up by i / N, then stay at the lr of the optimizer', () => {
    const warmup = scheduler('WarmupLR', { warmup_num_steps: 4, warmup_type: 'linear' }, 8);
    const seen = Array.from({ length: 6 }, () => {
      warmup.step();
      return warmup.lr[0];
    });
    expect(seen).toEqual([0, 2, 4, 6, 8, 8]);
  });

  it('end a cosine at the floor and stay there', () => {
    const cosine = scheduler('WarmupCosineLR', { total_num_steps: 6, warmup_num_steps: 2, cos_min_ratio: 0.25 }, 1);
    cosine.step(3);
    expect(cosine.lr[0]).toBeCloseTo(0.25 + 0.75 * ((1 + Math.cos(Math.PI / 2)) / 2), 12);
    for (const late of [5, 6, 100]) {
      cosine.step(late);
      expect(cosine.lr).toEqual([0.25]);
    }
  });

  it('keep one learning rate per parameter group', () => {
    const groups = new LRScheduler({ lr: (iteration, base) => base * (iteration + 2) }, [1, 10]);
    groups.step();
    expect(groups.lr).toEqual([2, 20]);
  });

  it('resume where their state says', () => {
    const straight = scheduler('WarmupCosineLR', { total_num_steps: 50, warmup_num_steps: 5 });
    for (let i = 0; i < 17; i++) straight.step();
    const resumed = scheduler('WarmupCosineLR', { total_num_steps: 50, warmup_num_steps: 5 });
    resumed.loadStateDict(JSON.parse(JSON.stringify(straight.stateDict())));
    expect(resumed.lr).toEqual(straight.lr);
    expect(() => resumed.loadStateDict({ last_batch_iteration: -2 })).toThrow(
      /expected last_batch_iteration to be an integer >= -1, got -2/,
    );
  });
});
