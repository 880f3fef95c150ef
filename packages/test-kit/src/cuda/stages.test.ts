import { beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { StagesArgs, StagesResult } from '../zero/stages-rank.js';
import type { TrainingRun } from '../zero/training-run.js';
import { gpus } from './devices.js';

const STAGES = [0, 1, 2, 3] as const;

const lora: TrainingRun = {
  model: 'lora',
  stage: 0,
  optimizer: { type: 'AdamW', params: { lr: 1e-3, weight_decay: 0.1 } },
  steps: 12,
};

const families: Readonly<Record<string, TrainingRun>> = {
  'f32, 1 micro-batch': { model: 'gpt', stage: 0, steps: 20 },
  'bf16, 3 micro-batches': { model: 'gpt', stage: 0, bf16: true, accumulation: 3, steps: 20 },
  'bf16, dropout': { model: 'gpt', stage: 0, bf16: true, dropout: 0.2, steps: 6 },
  'uneven sizes with tied, unused and frozen parameters, f32': { model: 'odd', stage: 0, accumulation: 2, steps: 8 },
  'bf16 with f32 gradients': { model: 'odd', stage: 0, bf16: true, f32Gradients: true, accumulation: 2, steps: 8 },
  'fp16 with overflows': { model: 'odd', stage: 0, fp16: true, overflowAt: [1, 2, 5], steps: 8 },
  'a mixture of experts, bf16': { model: 'mixtral', stage: 0, bf16: true, accumulation: 2, steps: 6 },
  'a mixture of experts, f32, recomputed': { model: 'mixtral', stage: 0, recompute: true, accumulation: 2, steps: 6 },
  'adapters, bf16, dropout': { ...lora, bf16: true, dropout: 0.2, accumulation: 2 },
  'adapters on weights in 4 bits, bf16': { ...lora, bf16: true, quantization: 'nf4' },
  'adapters on weights in 8 bits, f32, recomputed': { ...lora, quantization: 'int8', recompute: true },
  'units in an order that changes from pass to pass': { model: 'wandering', stage: 0, accumulation: 2, steps: 8 },
};

describe.skipIf(gpus(2) < 2)('training on two GPUs', () => {
  let ranks: StagesResult[] = [];
  let captured: StagesResult[] = [];
  const keyOf = (name: string, stage: number) => `${name} at stage ${stage}`;

  beforeAll(async () => {
    const runs = Object.entries(families).flatMap(([name, run]) => STAGES.map((stage) => [keyOf(name, stage), { ...run, stage }] as const));
    const world = (env: Readonly<Record<string, string>>) =>
      runWorld<StagesResult, StagesArgs>(new URL('../zero/stages-rank.ts', import.meta.url), 2, {
        args: { runs: Object.fromEntries(runs), together: [], device: 'cuda' },
        env,
        timeoutMs: 180_000,
      });
    ranks = await world({});
    captured = await world({ DEEPSPEED_TS_CUDA_GRAPHS: '1' });
  }, 370_000);

  test.each(Object.keys(families))('every stage gives the same bits: %s', (name) => {
    const [whole, ...sharded] = STAGES.map((stage) => ranks[0]!.runs[keyOf(name, stage)]!);
    for (const result of sharded) expect(result).toEqual(whole);
    expect(whole!.losses.at(-1)).toBeLessThan(whole!.losses[0]!);
  });

  test.each(Object.keys(families))('capturing launches in graphs gives the same bits at every stage: %s', (name) => {
    for (const stage of STAGES) expect(captured[0]!.runs[keyOf(name, stage)]).toEqual(ranks[0]!.runs[keyOf(name, stage)]);
  });

  test('both ranks see the same weights, losses and norms', () => {
    expect(ranks[1]).toEqual(ranks[0]);
  });
});
