import { beforeAll, expect, test } from 'vitest';
import { type OptimizerResult, type OptimizerRun, optimizers, precisions } from './optimizer-run.js';

const STAGES = [0, 1, 2, 3] as const;
const cases = Object.keys(optimizers).flatMap((optimizer) => Object.keys(precisions).map((precision) => ({ optimizer, precision })));

/** Every optimizer in every precision at every stage. */
export const optimizerRuns = cases.flatMap((run) => STAGES.map((stage) => ({ ...run, stage }) as OptimizerRun));

/** Tests that optimizers don't notice the stage. `train` gives the results of each rank of a world, of all runs in their order. */
export function optimizerContract(train: () => Promise<readonly (readonly OptimizerResult[])[]>): void {
  let ranks: readonly (readonly OptimizerResult[])[];

  beforeAll(async () => {
    ranks = await train();
  }, 130_000);

  test.each(cases)('$optimizer in $precision gives the same bits at every stage, and on every rank', (run) => {
    const of = (rank: readonly OptimizerResult[]) =>
      rank.filter((_, i) => optimizerRuns[i]!.optimizer === run.optimizer && optimizerRuns[i]!.precision === run.precision);
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
    const hashes = ranks[0]!.filter((_, i) => optimizerRuns[i]!.stage === 0).map(({ hash }) => hash);
    expect(new Set(hashes).size).toBe(hashes.length);
  });
}
