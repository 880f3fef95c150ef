import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { runWorld, spawnWorld } from '../spawn-world.js';
import type { Run } from './resumable-run.js';
import type { PartArgs, PartResult } from './thirty-steps-rank.js';

const directory = mkdtempSync(join(tmpdir(), 'thirty-steps-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const program = new URL('./thirty-steps-rank.ts', import.meta.url);

/** With 31 samples and 4 of them in a micro-batch of two ranks, no part ends where an epoch does. */
const runs: readonly { run: Run; cuts: readonly number[] }[] = [
  { run: { model: 'odd', stage: 2 }, cuts: [10, 20, 30] },
  // Within a step: three micro-batches make one.
  { run: { model: 'gpt', stage: 3, bf16: true, dropout: 0.2, accumulation: 3 }, cuts: [31, 62, 90] },
  // With batches that were loaded and not drawn when it was killed.
  { run: { model: 'gpt', stage: 1, fp16: true, accumulation: 2, loadAhead: 3 }, cuts: [21, 41, 60] },
];

test('30 steps straight are 10 steps, a kill, 10 steps, a kill and 10 steps, to the bit', async () => {
  const part = (index: number): PartArgs => ({
    runs: runs.map(({ run, cuts }, i) => ({ run, directory: join(directory, `run-${i}`), until: cuts[index]! })),
    last: index === 2,
  });
  for (const index of [0, 1]) {
    const world = await spawnWorld<never, PartArgs>(program, 2, { args: part(index), timeoutMs: 110_000 });
    await Promise.all([world.heard(0, 'saved'), world.heard(1, 'saved')]);
    world.kill();
    await world.outcomes();
  }
  const ranks = await runWorld<PartResult[], PartArgs>(program, 2, { args: part(2), timeoutMs: 110_000 });
  expect(ranks[1]).toEqual(ranks[0]);
  for (const { cut, straight } of ranks[0]!) expect(cut).toBe(straight);
  expect(new Set(ranks[0]!.map(({ cut }) => cut)).size).toBe(runs.length);
  for (const [i, { cuts }] of runs.entries()) expect(readFileSync(join(directory, `run-${i}`, 'latest'), 'utf8')).toBe(`after-${cuts[2]}`);
}, 240_000);
