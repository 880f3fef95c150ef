import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { TrainerRankArgs, TrainerRankResult } from '../trainer/trainer-rank.js';
import { gpus } from './devices.js';

const found = gpus(2);
const folder = mkdtempSync(join(tmpdir(), 'cuda-trainer-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const train = (device: 'cpu' | 'cuda', ranks: number, args: Omit<TrainerRankArgs, 'folder'>) =>
  runWorld<TrainerRankResult, TrainerRankArgs>(new URL('../trainer/trainer-rank.ts', import.meta.url), ranks, {
    args: { ...args, folder: join(folder, `${device}-${ranks}-${args.stage}`) },
    env: { DEEPSPEED_TS_DEVICE: device },
    timeoutMs: 120_000,
  });
const losses = ([first]: readonly TrainerRankResult[]) => first!.logs.flatMap(({ loss }) => loss ?? []);

describe('a Trainer on GPUs', () => {
  test.skipIf(found < 1)('has the losses of the CPU, and leaves no buffer', async () => {
    const [here, there] = [await train('cpu', 1, { stage: 0 }), await train('cuda', 1, { stage: 0 })];
    expect(losses(there)).toHaveLength(losses(here).length);
    for (const [step, loss] of losses(here).entries()) expect(losses(there)[step]! / loss, `step ${step + 1}`).toBeCloseTo(1, 3);
  });

  test.skipIf(found < 2)(
    'of two ranks trains stage 3 to the bits of stage 0, losses divided by labels that are counted on the device',
    async () => {
      const [plain, sharded] = [await train('cuda', 2, { stage: 0, bf16: true }), await train('cuda', 2, { stage: 3, bf16: true })];
      for (const { hash } of [...plain, ...sharded]) expect(hash).toBe(plain[0]!.hash);
      expect(losses(sharded)).toEqual(losses(plain));
    },
  );
});
