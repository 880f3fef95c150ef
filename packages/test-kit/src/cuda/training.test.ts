import { type Backend, uniforms, WorldOfOne } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { close, hashOf, type TrainingResult, type TrainingRun, train } from '../zero/training-run.js';
import { gpus } from './devices.js';

const [VOCABULARY, CONTEXT, BATCH] = [211, 40, 6];

interface Trained {
  readonly losses: readonly number[];
  readonly hash: string;
}

/** A GPT of odd sizes, trained on bytes that have something to learn. */
async function trainGpt(backend: Backend, steps: number, precision: 'f32' | 'bf16' = 'f32', dropout = 0): Promise<Trained> {
  const { engine } = await initialize({
    model: new DecoderLM(gpt2({ vocabSize: VOCABULARY, layers: 3, heads: 3, dim: 72, context: CONTEXT, dropout })),
    backend,
    communicator: new WorldOfOne(),
    seed: 5,
    config: {
      train_micro_batch_size_per_gpu: BATCH,
      gradient_clipping: 1,
      bf16: { enabled: precision === 'bf16' },
      optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.95], weight_decay: 0.1 } },
    },
  });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const draws = uniforms({ seed: 1, step }, 0, BATCH * CONTEXT);
    const data = Int32Array.from(draws, (u) => Math.floor(u * u * VOCABULARY));
    const shape = [BATCH, CONTEXT];
    losses.push(await engine.trainBatch([{ inputIds: { data, shape }, labels: { data, shape } }]));
  }
  const hash = await hashOf(engine);
  await close(engine);
  return { losses, hash };
}

describe.skipIf(gpus() === 0)('training on a GPU', () => {
  test('goes through 100 steps in f32 with the losses of the CPU', async () => {
    const [cpu, cuda] = [await trainGpt(cpuBackend(), 100), await trainGpt(cudaBackend(), 100)];
    for (const [step, loss] of cuda.losses.entries())
      expect(Math.abs(loss - cpu.losses[step]!) / cpu.losses[step]!, `loss of step ${step}: ${loss}, CPU ${cpu.losses[step]}`).toBeLessThan(
        1e-4,
      );
    expect(cuda.losses.at(-1)).toBeLessThan(0.7 * cuda.losses[0]!);
  });

  test('in bf16 stays close to the CPU', async () => {
    const [cpu, cuda] = [await trainGpt(cpuBackend(), 30, 'bf16'), await trainGpt(cudaBackend(), 30, 'bf16')];
    for (const [step, loss] of cuda.losses.entries())
      expect(Math.abs(loss - cpu.losses[step]!) / cpu.losses[step]!, `loss of step ${step}: ${loss}, CPU ${cpu.losses[step]}`).toBeLessThan(
        2e-2,
      );
  });

  test('with dropout drops what the CPU drops', async () => {
    const [cpu, cuda] = [await trainGpt(cpuBackend(), 10, 'f32', 0.2), await trainGpt(cudaBackend(), 10, 'f32', 0.2)];
    for (const [step, loss] of cuda.losses.entries()) expect(Math.abs(loss - cpu.losses[step]!) / cpu.losses[step]!).toBeLessThan(1e-4);
  });

  test.each([
    ['f32', 0],
    ['bf16', 0],
    ['bf16', 0.2],
  ] as const)('gives the same bits when it is repeated: %s, dropout %d', async (precision, dropout) => {
    const [first, second] = [await trainGpt(cudaBackend(), 20, precision, dropout), await trainGpt(cudaBackend(), 20, precision, dropout)];
    expect(second).toEqual(first);
  });

  const runs: Readonly<Record<string, TrainingRun>> = {
    'f32, uneven sizes': { model: 'odd', stage: 0, accumulation: 2, steps: 6 },
    'bf16 with f32 gradients': { model: 'odd', stage: 0, bf16: true, f32Gradients: true, accumulation: 2, steps: 6 },
    'fp16 with overflows': { model: 'odd', stage: 0, fp16: true, overflowAt: [1, 2], steps: 6 },
    'bf16, dropout': { model: 'gpt', stage: 0, bf16: true, dropout: 0.2, steps: 6 },
    'bf16, dropout, recomputed': { model: 'gpt', stage: 0, bf16: true, dropout: 0.2, recompute: true, steps: 6 },
  };

  test.each(Object.entries(runs))('gives the same bits at every stage with one rank: %s', async (_, run) => {
    const results: TrainingResult[] = [];
    for (const stage of [0, 1, 2, 3] as const) results.push(await train({ ...run, stage }, new WorldOfOne(), cudaBackend()));
    for (const result of results) expect(result).toEqual(results[0]);
  });

  test('keeping activations or recomputing them gives the same bits', async () => {
    const results: TrainingResult[] = [];
    for (const name of ['bf16, dropout', 'bf16, dropout, recomputed'])
      results.push(await train(runs[name]!, new WorldOfOne(), cudaBackend()));
    expect(results[1]).toEqual(results[0]);
  });
});
