import { WorldOfOne } from '@deepspeed-ts/core';
import { cpuBackend } from 'deepspeed-ts';
import { beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import { type OptimizerResult, type OptimizerRun, optimizers, precisions, trainWith } from './optimizer-run.js';

const STAGES = [0, 1, 2, 3] as const;

const cases = Object.keys(optimizers).flatMap((optimizer) => Object.keys(precisions).map((precision) => ({ optimizer, precision })));
const runs = cases.flatMap((run) => STAGES.map((stage) => ({ ...run, stage }) as OptimizerRun));

describe.each([1, 2, 3, 4])('on %i ranks', (size) => {
  /** Of each rank, of each run. */
  let ranks: readonly (readonly OptimizerResult[])[];

  // One world trains everything: starting processes costs more than training such models.
  beforeAll(async () => {
    ranks = size === 1 ? [await trainAlone()] : await runWorld(new URL('./optimizers-rank.ts', import.meta.url), size, { args: runs });
  }, 130_000);

  test.each(cases)('$optimizer in $precision gives the same bits at every stage, and on every rank', (run) => {
    const of = (rank: readonly OptimizerResult[]) =>
      rank.filter((_, i) => runs[i]!.optimizer === run.optimizer && runs[i]!.precision === run.precision);
    const [first] = of(ranks[0]!);
    for (const rank of ranks) {
      for (const { losses, ...rest } of of(rank)) {
        // Each rank has its own data, and so its own loss.
        expect(losses).toEqual(of(rank)[0]!.losses);
        expect({ ...rest, losses: first!.losses }).toEqual(first);
      }
    }
    const { overflowAt } = precisions[run.precision as keyof typeof precisions];
    expect(first!.gradNorms.flatMap((norm, step) => (Number.isFinite(Number(norm)) ? [] : [step]))).toEqual(overflowAt);
    expect(first!.applied).toBe(first!.gradNorms.length - overflowAt.length);
  });

  test('no two of them end with the same weights', () => {
    const hashes = ranks[0]!.filter((_, i) => runs[i]!.stage === 0).map(({ hash }) => hash);
    expect(new Set(hashes).size).toBe(hashes.length);
  });
});

async function trainAlone(): Promise<OptimizerResult[]> {
  const results: OptimizerResult[] = [];
  for (const run of runs) results.push(await trainWith(run, new WorldOfOne(), cpuBackend()));
  return results;
}
