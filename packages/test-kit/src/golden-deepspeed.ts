import { join } from 'node:path';
import type { DeviceName } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { goldenFolder, readJson, readTensors, relativeError } from './golden.js';
import type { DeepSpeedRun } from './golden-deepspeed-rank.js';
import { runWorld } from './spawn-world.js';

interface Expected {
  readonly losses_by_rank: readonly (readonly number[])[];
  readonly grad_norm_last: number;
  readonly lr: readonly number[];
}

const TOLERANCE = 1e-4;
const relative = (actual: number, expected: number) => Math.abs(actual - expected) / Math.abs(expected);

/** Tests the engine of two ranks on a kind of device against what DeepSpeed recorded. */
export function goldenDeepSpeed(device: DeviceName): void {
  describe.each([0, 1, 2, 3])(`on two ${device} ranks fed DeepSpeed's own run at stage %i in fp32`, (stage) => {
    const folder = goldenFolder('deepspeed-checkpoints', `stage${stage}-fp32-world2`);

    test.skipIf(!folder)('the engine gives its losses, gradient norm, learning rate, weights and moments', async () => {
      const expected = readJson<Expected>(join(folder!, 'expected.json'));
      const state = readTensors(join(folder!, 'expected.safetensors'));
      const runs = await runWorld<DeepSpeedRun>(new URL('./golden-deepspeed-rank.ts', import.meta.url), 2, { args: { folder, device } });
      for (const [rank, run] of runs.entries()) {
        expect(run.losses).toHaveLength(expected.losses_by_rank[rank]!.length);
        for (const [step, loss] of run.losses.entries()) {
          expect(relative(loss, expected.losses_by_rank[rank]![step]!), `loss of step ${step} on rank ${rank}`).toBeLessThan(TOLERANCE);
        }
        // At stage 0 DeepSpeed does not record the norm.
        if (expected.grad_norm_last > 0) expect(relative(run.gradNorm, expected.grad_norm_last)).toBeLessThan(TOLERANCE);
        expect(relative(run.lr, expected.lr[0]!)).toBeLessThan(TOLERANCE);
        for (const [name, { data }] of state) expect(relativeError(run.state.get(name)!, data), name).toBeLessThan(TOLERANCE);
      }
    });
  });
}
