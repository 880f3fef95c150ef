import { WorldOfOne } from '@deepspeed-ts/core';
import { beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { StagesArgs, StagesResult } from './stages-rank.js';
import { batchesOf, CLIP, close, openEngine, type TrainingResult, type TrainingRun, train } from './training-run.js';

const STAGES = [0, 1, 2, 3] as const;
const gpt = (options: Partial<TrainingRun> = {}): TrainingRun => ({ model: 'gpt', stage: 3, steps: 20, ...options });
const odd = (options: Partial<TrainingRun> = {}): TrainingRun => ({ model: 'odd', stage: 3, steps: 8, ...options });
const sparse = (options: Partial<TrainingRun> = {}): TrainingRun => ({ model: 'mixtral', stage: 3, steps: 6, accumulation: 2, ...options });
const short = (options: Partial<TrainingRun> = {}): TrainingRun => gpt({ steps: 6, ...options });

type Runs = Readonly<Record<string, TrainingRun>>;

const lora = (options: Partial<TrainingRun> = {}): TrainingRun =>
  short({ model: 'lora', steps: 12, optimizer: { type: 'AdamW', params: { lr: 1e-3, weight_decay: 0.1 } }, ...options });

/** Each is run at every stage. */
const families: Runs = {
  'f32, 1 micro-batch': gpt(),
  'f32, 3 micro-batches': gpt({ accumulation: 3 }),
  'bf16, 1 micro-batch': gpt({ bf16: true }),
  'bf16, 3 micro-batches': gpt({ bf16: true, accumulation: 3 }),
  'uneven sizes with tied, unused and frozen parameters, f32': odd({ accumulation: 2 }),
};

/** As well, on two ranks. */
const moreFamilies: Runs = {
  'uneven sizes with tied, unused and frozen parameters, bf16 with f32 gradients': odd({ bf16: true, f32Gradients: true, accumulation: 2 }),
  'SGD with momentum, bf16': odd({ bf16: true, optimizer: { type: 'SGD', params: { lr: 0.1, momentum: 0.9, weight_decay: 0.01 } } }),
  'Adagrad, f32': odd({ optimizer: { type: 'Adagrad', params: { lr: 0.05, lr_decay: 0.1 } } }),
  'Lion, fp16 with an overflow': odd({
    fp16: true,
    overflowAt: [2],
    optimizer: { type: 'Lion', params: { lr: 0.003, weight_decay: 0.1 } },
  }),
  'Lamb, bf16 with overflows that check_grad_overflow skips': odd({
    bf16: true,
    overflowAt: [1, 4],
    optimizer: { type: 'Lamb', params: { lr: 0.05, weight_decay: 0.1 } },
  }),
  'Muon, fp16 with an overflow': odd({
    fp16: true,
    overflowAt: [2],
    optimizer: { type: 'Muon', params: { lr: 0.01, muon_lr: 0.03, weight_decay: 0.1 } },
  }),
  'AdamW with moments in 8 bits, bf16': odd({
    bf16: true,
    optimizer: { type: 'AdamW8bit', params: { lr: 1e-2, min_8bit_size: 100, f32_embeddings: false } },
  }),
  'bf16 weights and moments, without anything in f32': odd({ bf16: true, bf16Masters: true, bf16States: true }),
  'fp16 with overflows': odd({ fp16: true, accumulation: 2, overflowAt: [1, 2, 5] }),
  'fp16 with f32 gradients and overflows': short({ fp16: true, f32Gradients: true, overflowAt: [0, 3, 4] }),
  'units in an order that changes from pass to pass': odd({ model: 'wandering', accumulation: 2 }),
  'a mixture of experts, f32': sparse(),
  'a mixture of experts, bf16 with f32 gradients': sparse({ bf16: true, f32Gradients: true }),
  'adapters on a frozen model, f32': lora({ accumulation: 2 }),
  'adapters on a frozen model, bf16, with dropout': lora({ bf16: true, dropout: 0.2 }),
  'adapters on weights in 4 bits, bf16': lora({ bf16: true, quantization: 'nf4', accumulation: 2 }),
  'adapters on weights in 8 bits, f32': lora({ quantization: 'int8', recompute: true }),
  'dropout, f32': short({ dropout: 0.2, accumulation: 2 }),
};

/** Pairs that must agree to the bit though they do things in another way. */
const variants: Readonly<Record<string, readonly [TrainingRun, TrainingRun]>> = {
  'reduction beside backward or after it': [short({ stage: 2, accumulation: 3 }), short({ stage: 2, accumulation: 3, overlap: false })],
  'gathering ahead or on demand, in an order that changes': [
    odd({ model: 'wandering', accumulation: 2 }),
    odd({ model: 'wandering', accumulation: 2, prefetch: false }),
  ],
  'whole or sharded gradients, where ranks use units in different orders': [
    odd({ model: 'parting', stage: 0 }),
    odd({ model: 'parting', stage: 2 }),
  ],
  'gathering ahead or on demand': [short({ bf16: true }), short({ bf16: true, prefetch: false, overlap: false })],
  'keeping activations or recomputing them': [short(), short({ recompute: true })],
  'keeping or recomputing a mixture of experts, with noise before its routers': [
    sparse({ bf16: true }),
    sparse({ bf16: true, recompute: true }),
  ],
  'keeping or recomputing, with adapters and dropout': [
    lora({ dropout: 0.2, accumulation: 2 }),
    lora({ dropout: 0.2, accumulation: 2, recompute: true }),
  ],
  'gathering ahead or on demand, with adapters': [lora({ bf16: true }), lora({ bf16: true, prefetch: false })],
  'gathering codes ahead or on demand': [
    lora({ bf16: true, quantization: 'nf4' }),
    lora({ bf16: true, quantization: 'nf4', prefetch: false }),
  ],
  'keeping or recomputing, with dropout': [
    short({ dropout: 0.2, accumulation: 2 }),
    short({ dropout: 0.2, accumulation: 2, recompute: true }),
  ],
};

const together = [short({ accumulation: 3 }), odd({ stage: 1, accumulation: 2, steps: 6 })] as const;

describe('training on 4 ranks', () => {
  const world = startOnce(4, atEveryStage(families));
  test.each(Object.entries(families))('every stage gives the same bits: %s', (_, run) => checkStages(world, run));
  checkWorld(world, families);
});

describe('training on 2 ranks', () => {
  const all = { ...families, ...moreFamilies };
  const world = startOnce(2, [...atEveryStage(all), ...Object.values(variants).flat(), ...together], together);
  test.each(Object.entries(all))('every stage gives the same bits: %s', (_, run) => checkStages(world, run));
  checkWorld(world, all);

  test.each(Object.entries(variants))('it makes no difference: %s', (_, [one, other]) => {
    expect(world.resultOf(other)).toEqual(world.resultOf(one));
  });

  test('overflows on one rank are skipped by all and move the loss scale', () => {
    const { lossScales, skippedSteps } = world.resultOf(moreFamilies['fp16 with overflows']!);
    // Hysteresis 2: the first is forgiven. A window is two clean steps after the first one.
    expect(lossScales.map(Math.log2)).toEqual([10, 10, 9, 9, 9, 8, 8, 8]);
    expect(skippedSteps).toBe(3);
  });

  test('dropout changes the loss', () => {
    expect(world.resultOf(short({ dropout: 0.2, accumulation: 2 })).losses[0]).not.toBe(world.resultOf(short()).losses[0]);
  });

  test('two engines trained in turns give what each gives alone', () => {
    expect(world.ranks[0]!.together).toEqual(together.map((run) => world.resultOf(run).hash));
  });
});

test('with one rank every stage gives the same bits as well', async () => {
  const results: TrainingResult[] = [];
  for (const stage of STAGES) results.push(await train(odd({ stage, accumulation: 2 }), new WorldOfOne()));
  for (const result of results) expect(result).toEqual(results[0]);
});

interface TrainedWorld {
  readonly size: number;
  ranks: StagesResult[];
  resultOf(run: TrainingRun): TrainingResult;
}

/** One world trains everything: starting processes costs more than training such models. */
function startOnce(size: number, runs: readonly TrainingRun[], pair: StagesArgs['together'] = []): TrainedWorld {
  const world: TrainedWorld = { size, ranks: [], resultOf: (run) => world.ranks[0]!.runs[nameOf(run)]! };
  beforeAll(async () => {
    const args: StagesArgs = { runs: Object.fromEntries(runs.map((run) => [nameOf(run), run])), together: pair };
    world.ranks = await runWorld<StagesResult, StagesArgs>(new URL('./stages-rank.ts', import.meta.url), size, {
      args,
      timeoutMs: 120_000,
    });
  }, 130_000);
  return world;
}

function checkStages(world: TrainedWorld, run: TrainingRun): void {
  const [whole, ...sharded] = STAGES.map((stage) => world.resultOf({ ...run, stage }));
  for (const result of sharded) expect(result).toEqual(whole);
  expect(whole!.losses.at(-1)).toBeLessThan(whole!.losses[0]!);
}

function checkWorld(world: TrainedWorld, runs: Runs): void {
  test('gradients were clipped in these runs', () => {
    for (const run of Object.values(runs)) expect(Math.max(...world.resultOf(run).gradNorms)).toBeGreaterThan(CLIP);
  });

  test('all ranks see the same weights, losses and norms', () => {
    for (const rank of world.ranks) expect(rank).toEqual(world.ranks[0]);
  });

  test.each([gpt({ accumulation: 3 }), odd({ accumulation: 2 })])(
    'a single process that does the work of all ranks gives the same up to rounding: $model',
    async (run) => {
      const alone = { ...run, stage: 0 as const, accumulation: run.accumulation! * world.size };
      const engine = await openEngine(alone, new WorldOfOne());
      const expected = world.resultOf(run);
      for (let step = 0; step < run.steps; step++) {
        const loss = await engine.trainBatch(batchesOf(alone, step, 0, world.size));
        expectClose(loss, expected.losses[step]!, `loss of step ${step}`);
        expectClose(engine.globalGradNorm, expected.gradNorms[step]!, `gradient norm of step ${step}`);
      }
      await close(engine);
    },
  );
}

function atEveryStage(runs: Runs): TrainingRun[] {
  return Object.values(runs).flatMap((run) => STAGES.map((stage) => ({ ...run, stage })));
}

function expectClose(actual: number, expected: number, what: string): void {
  expect(Math.abs(actual - expected) / Math.abs(expected), what).toBeLessThan(1e-3);
}

function nameOf(run: TrainingRun): string {
  return JSON.stringify(Object.entries(run).sort(([a], [b]) => a.localeCompare(b)));
}
