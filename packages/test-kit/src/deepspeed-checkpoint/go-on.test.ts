import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convertDeepSpeedCheckpoint } from 'deepspeed-ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goldenFolder } from '../golden.js';
import { runWorld } from '../spawn-world.js';
import type { GoneOn, GoOnArgs } from './go-on-rank.js';

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'go-on-'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const goOn = (folder: string, checkpoint?: string, config: object = {}) =>
  runWorld<GoneOn>(new URL('./go-on-rank.ts', import.meta.url), 2, { args: { folder, checkpoint, config } as GoOnArgs });

describe.each([
  ['stage3-fp32', { zero_optimization: { stage: 1 } }, 1e-5],
  // What DeepSpeed rounded otherwise than we in five steps of bf16 is in the weights that both go on from.
  ['stage2-bf16', { zero_optimization: { stage: 3 } }, 1e-3],
] as const)('a run of DeepSpeed at %s, converted', (name, config, within) => {
  const folder = goldenFolder('deepspeed-checkpoints', `${name}-world2`);

  it.skipIf(!folder)('goes on where it stopped, at any stage: as the same run does that was ours from the start', async () => {
    const checkpoint = join(scratch, name);
    await convertDeepSpeedCheckpoint(folder!, checkpoint);
    const [ours, converted] = [await goOn(folder!, undefined, config), await goOn(folder!, checkpoint, config)];
    for (const [rank, run] of converted.entries()) {
      expect(run).toMatchObject({ globalSteps: 7, clientState: { epoch: 3, note: 'from client' } });
      expect(run.lr).toBeCloseTo(ours[rank]!.lr, 12);
      for (const [step, loss] of run.losses.entries()) {
        expect(Math.abs(loss / ours[rank]!.losses[step]! - 1), `step ${step} on rank ${rank}`).toBeLessThan(within);
      }
    }
  });
});
