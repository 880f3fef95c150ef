import { WorldOfOne } from '@deepspeed-ts/core';
import { beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { StagesArgs, StagesResult } from './stages-rank.js';
import { batchesOf, CLIP, close, openEngine, type TrainingResult, type TrainingRun, train } from './training-run.js';

const STAGES = [0, 1, 2, 3] as const;
const gpt = (options: Partial<TrainingRun> = {}): TrainingRun => ({ model: 'gpt', stage: 3, steps: 20, ...options });
const odd = (options: Partial<TrainingRun> = {}): TrainingRun => ({ model: 'odd', stage: 3, steps: 8, ...options });
const short = (options: Partial<TrainingRun> = {}): TrainingRun => gpt({ steps: 6, ...options });

/** Each is run at every stage. */
const families: Readonly<Record<string, TrainingRun>> = {
  'f32, 1 micro-batch': gpt(),
  'f32, 3 micro-batches': gpt({ accumulation: 3 }),
  'bf16, 1 micro-batch': gpt({ bf16: true }),
  'bf16, 3 micro-batches': gpt({ bf16: true, accumulation: 3 }),
  'uneven sizes with tied, unused and frozen parameters, f32': odd({ accumulation: 2 }),
  'uneven sizes with tied, unused and frozen parameters, bf16 with f32 gradients': odd({ bf16: true, f32Gradients: true, accumulation: 2 }),
  'dropout, f32': short({ dropout: 0.2, accumulation: 2 }),
};

/** Pairs that must agree to the bit though they do things in another way. */
const variants: Readonly<Record<string, readonly [TrainingRun, TrainingRun]>> = {
  'reduction beside backward or after it': [short({ stage: 2, accumulation: 3 }), short({ stage: 2, accumulation: 3, overlap: false })],
  'gathering ahead or on demand': [short({ bf16: true }), short({ bf16: true, prefetch: false, overlap: false })],
  'keeping activations or recomputing them': [short(), short({ recompute: true })],
  'keeping or recomputing, with dropout': [
    short({ dropout: 0.2, accumulation: 2 }),
    short({ dropout: 0.2, accumulation: 2, recompute: true }),
  ],
};

const together = [short({ accumulation: 3 }), odd({ stage: 1, accumulation: 2, steps: 6 })] as const;

describe.each([2, 4])('training on %i ranks', (size) => {
  let ranks: StagesResult[];
  const resultOf = (run: TrainingRun): TrainingResult => ranks[0]!.runs[nameOf(run)]!;

  beforeAll(async () => {
    const all = [
      ...Object.values(families).flatMap((run) => STAGES.map((stage) => ({ ...run, stage }))),
      ...Object.values(variants).flat(),
      ...together,
    ];
    const args: StagesArgs = { runs: Object.fromEntries(all.map((run) => [nameOf(run), run])), together };
    ranks = await runWorld<StagesResult, StagesArgs>(new URL('./stages-rank.ts', import.meta.url), size, { args, timeoutMs: 120_000 });
  }, 130_000);

  test.each(Object.entries(families))('every stage gives the same bits: %s', (_, run) => {
    const [whole, ...sharded] = STAGES.map((stage) => resultOf({ ...run, stage }));
    for (const result of sharded) expect(result).toEqual(whole);
    expect(whole!.losses.at(-1)).toBeLessThan(whole!.losses[0]!);
  });

  test.each(Object.entries(variants))('it makes no difference: %s', (_, [one, other]) => {
    expect(resultOf(other)).toEqual(resultOf(one));
  });

  test('gradients were clipped in these runs', () => {
    for (const run of Object.values(families)) expect(Math.max(...resultOf(run).gradNorms)).toBeGreaterThan(CLIP);
  });

  test('dropout changes the loss', () => {
    expect(resultOf(short({ dropout: 0.2, accumulation: 2 })).losses[0]).not.toBe(resultOf(short()).losses[0]);
  });

  test('all ranks see the same weights, losses and norms', () => {
    for (const rank of ranks) expect(rank).toEqual(ranks[0]);
  });

  test('two engines trained in turns give what each gives alone', () => {
    expect(ranks[0]!.together).toEqual(together.map((run) => resultOf(run).hash));
  });

  test.each([gpt({ accumulation: 3 }), odd({ accumulation: 2 })])(
    'a single process that does the work of all ranks gives the same up to rounding: $model',
    async (run) => {
      const alone = { ...run, stage: 0 as const, accumulation: run.accumulation! * size };
      const engine = await openEngine(alone, new WorldOfOne());
      const expected = resultOf(run);
      for (let step = 0; step < run.steps; step++) {
        const loss = await engine.trainBatch(batchesOf(alone, step, 0, size));
        expectClose(loss, expected.losses[step]!, `loss of step ${step}`);
        expectClose(engine.globalGradNorm, expected.gradNorms[step]!, `gradient norm of step ${step}`);
      }
      await close(engine);
    },
  );
});

test('with one rank every stage gives the same bits as well', async () => {
  const results: TrainingResult[] = [];
  for (const stage of STAGES) results.push(await train(odd({ stage, accumulation: 2 }), new WorldOfOne()));
  for (const result of results) expect(result).toEqual(results[0]);
});

function expectClose(actual: number, expected: number, what: string): void {
  expect(Math.abs(actual - expected) / Math.abs(expected), what).toBeLessThan(1e-3);
}

function nameOf(run: TrainingRun): string {
  return JSON.stringify(Object.entries(run).sort(([a], [b]) => a.localeCompare(b)));
}
