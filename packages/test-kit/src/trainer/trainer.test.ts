import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogEntry } from '@deepspeed-ts/transformers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runWorld, spawnWorld } from '../spawn-world.js';
import type { TrainerRankArgs, TrainerRankResult } from './trainer-rank.js';

const folder = mkdtempSync(join(tmpdir(), 'trainer-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const program = new URL('./trainer-rank.ts', import.meta.url);
const train = (args: Omit<TrainerRankArgs, 'folder'>, name: string) =>
  runWorld<TrainerRankResult, TrainerRankArgs>(program, 2, { args: { ...args, folder: join(folder, name) } });

/** Without what a clock says. */
const timeless = (logs: readonly LogEntry[]) =>
  logs.map((entry) => Object.fromEntries(Object.entries(entry).filter(([name]) => !/runtime|per_second/.test(name))));

describe('a Trainer on two ranks', () => {
  let plain: TrainerRankResult[];

  beforeAll(async () => {
    plain = await train({ stage: 0 }, 'stage0');
  });

  test('trains stage 3 to the bits of stage 0, and every rank tells the same', async () => {
    const sharded = await train({ stage: 3 }, 'stage3');
    for (const { hash, logs, steps } of [...plain, ...sharded]) {
      expect(hash).toBe(plain[0]!.hash);
      expect(timeless(logs)).toEqual(timeless(plain[0]!.logs));
      // 39 samples are 10 micro-batches of 2 on 2 ranks, the last one smaller: 4 steps of at most 3 in an epoch.
      expect(steps).toBe(8);
    }
    const [first, ...rest] = sharded[0]!.logs.filter(({ loss }) => loss !== undefined);
    expect(rest.at(-1)!.loss!).toBeLessThan(first!.loss!);
  });

  test('killed within an epoch and resumed has the bits, and the log, of a training that went straight on', async () => {
    const name = join(folder, 'killed');
    for (const [stage, dieAt] of [
      [3, 3],
      [1, 7],
    ] as const) {
      const world = await spawnWorld<TrainerRankResult, TrainerRankArgs>(program, 2, {
        args: { stage, folder: name, dieAt, resume: dieAt > 3 },
      });
      await Promise.all([world.heard(0, 'ready to die'), world.heard(1, 'ready to die')]);
      world.kill();
      await world.outcomes();
    }
    const resumed = await train({ stage: 3, resume: true }, 'killed');
    for (const { hash, logs } of resumed) {
      expect(hash).toBe(plain[0]!.hash);
      expect(timeless(logs).slice(0, -1)).toEqual(timeless(plain[0]!.logs).slice(0, -1));
    }
  });

  test('leaves checkpoints that Hugging Face reads: weights, config.json and trainer_state.json, the last two of them', () => {
    const path = join(folder, 'stage0');
    expect(
      readdirSync(path)
        .filter((name) => !name.startsWith('.'))
        .sort(),
    ).toEqual(['checkpoint-7', 'checkpoint-8', 'latest']);
    expect(readdirSync(join(path, 'checkpoint-8'))).toEqual(
      expect.arrayContaining(['config.json', 'model.safetensors.index.json', 'trainer_state.json', 'deepspeed-ts.json']),
    );
    const state = JSON.parse(readFileSync(join(path, 'checkpoint-7', 'trainer_state.json'), 'utf8')) as Record<string, unknown>;
    expect(state).toMatchObject({ global_step: 7, max_steps: 8, num_train_epochs: 2, train_batch_size: 2, save_steps: 1 });
    expect(state.log_history).toHaveLength(8);
  });
});
