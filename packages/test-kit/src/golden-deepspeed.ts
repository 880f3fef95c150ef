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

const relative = (actual: number, expected: number) => Math.abs(actual - expected) / Math.abs(expected);

/** Tests the engine of two ranks on a kind of device against what DeepSpeed recorded. */
export function goldenDeepSpeed(device: DeviceName): void {
  describe.each([0, 1, 2, 3])(`on two ${device} ranks fed DeepSpeed's own run at stage %i in fp32`, (stage) => {
    const folder = goldenFolder('deepspeed-checkpoints', `stage${stage}-fp32-world2`);

    test.skipIf(!folder)('the engine gives its losses, gradient norm, learning rate, weights and moments', async () => {
      await compare(folder!, device, { losses: 1e-4, norm: 1e-4, state: 1e-4 });
    });
  });

  // Each rounds elsewhere: 8 bits of a product differ, so moments agree to about that, and losses to less than a thousandth.
  describe.each([1, 2, 3])(`on two ${device} ranks fed DeepSpeed's own run at stage %i in bf16`, (stage) => {
    const folder = goldenFolder('deepspeed-checkpoints', `stage${stage}-bf16-world2`);

    test.skipIf(!folder)('the engine gives its losses within 1e-3, and nearly its gradient norm, weights and moments', async () => {
      await compare(folder!, device, { losses: 1e-3, norm: 1e-2, state: 5e-2 });
    });
  });
}

async function compare(folder: string, device: DeviceName, within: { losses: number; norm: number; state: number }): Promise<void> {
  const expected = readJson<Expected>(join(folder, 'expected.json'));
  const state = readTensors(join(folder, 'expected.safetensors'));
  const runs = await runWorld<DeepSpeedRun>(new URL('./golden-deepspeed-rank.ts', import.meta.url), 2, { args: { folder, device } });
  for (const [rank, run] of runs.entries()) {
    expect(run.losses).toHaveLength(expected.losses_by_rank[rank]!.length);
    for (const [step, loss] of run.losses.entries()) {
      expect(relative(loss, expected.losses_by_rank[rank]![step]!), `loss of step ${step} on rank ${rank}`).toBeLessThan(within.losses);
    }
    // At stage 0 DeepSpeed does not record the norm.
    if (expected.grad_norm_last > 0) expect(relative(run.gradNorm, expected.grad_norm_last)).toBeLessThan(within.norm);
    expect(relative(run.lr, expected.lr[0]!)).toBeLessThan(1e-6);
    for (const [name, { data }] of state) expect(relativeError(run.state.get(name)!, data), name).toBeLessThan(within.state);
  }
}
