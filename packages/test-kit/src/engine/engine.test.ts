import { beforeAll, describe, expect, test } from 'vitest';
import { type RankOutcome, spawnWorld } from '../spawn-world.js';
import type { EngineResult } from './engine-rank.js';

describe('an engine of two ranks', () => {
  let outcomes: RankOutcome<EngineResult>[];
  let ranks: EngineResult[];

  beforeAll(async () => {
    const world = await spawnWorld<EngineResult>(new URL('./engine-rank.ts', import.meta.url), 2);
    outcomes = await world.outcomes();
    for (const { value, error, output } of outcomes) expect(value, error?.message ?? output).toBeDefined();
    ranks = outcomes.map(({ value }) => value!);
  });

  test('evaluates to the mean over ranks, where forward gives the loss of the own batch, and trains nothing by it', () => {
    const [first, second] = ranks.map(({ evaluation }) => evaluation);
    expect(first!.own).not.toBe(second!.own);
    for (const { mean, untouched } of [first!, second!]) {
      expect(mean).toBeCloseTo((first!.own + second!.own) / 2, 6);
      expect(untouched).toBe(true);
    }
  });

  test('trains by forward, backward and step to the bit as by trainBatch', () => {
    for (const { hashes, norms } of ranks) {
      expect(hashes[1]).toBe(hashes[0]);
      expect(norms[1]).toBe(norms[0]);
      expect(hashes).toEqual(ranks[0]!.hashes);
    }
  });

  test('draws every sample of an epoch once, each on one rank', () => {
    const [first, second] = ranks.map(({ drawn }) => drawn);
    expect([first!.length, second!.length]).toEqual([8, 8]);
    expect([...first!, ...second!].sort((a, b) => a - b)).toEqual(Array.from({ length: 16 }, (_, i) => i));
  });

  test('prints on rank 0 alone', () => {
    const lines = outcomes.map(({ output }) => output.split('\n').filter((line) => line.startsWith('step ')));
    expect(lines).toEqual([[expect.stringMatching(/^step 2 {2}loss \d/), expect.stringMatching(/^step 4 /)], []]);
  });
});
