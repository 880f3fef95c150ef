import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TrainingData, uniforms } from '@deepspeed-ts/core';
import { afterAll, expect, it } from 'vitest';
import { tinyModel, usable, weightsOf } from '../engine/test-support.js';
import { initialize } from '../initialize.js';

const directory = mkdtempSync(join(tmpdir(), 'data-training-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function get(index: number) {
  const tokens = Int32Array.from(uniforms({ seed: index }, 0, 6), (u) => Math.floor(u * 17));
  return { inputIds: tokens, labels: tokens };
}
type Sample = ReturnType<typeof get>;

const LENGTH = 11;
const memory = { length: LENGTH, get };
const later = { length: LENGTH, get: async (index: number) => get(index) };
const stream = {
  *stream(_epoch: number, start: number) {
    for (let i = start; i < LENGTH; i++) yield i;
  },
  load: async (index: number) => get(index),
};

/** Trains to a step, from a checkpoint where there is one, and saves. */
async function train(until: number, data: TrainingData<Sample>, name: string, options: { prefetch?: number } = {}): Promise<number[]> {
  const config = { ...usable, gradient_accumulation_steps: 2 };
  const { engine } = await initialize<Sample>({ model: tinyModel(), config, trainingData: data, seed: 4, ...options });
  try {
    await engine.loadCheckpoint(join(directory, name));
    while (engine.globalSteps < until) await engine.trainBatch();
    await (await engine.saveCheckpoint(join(directory, name))).finished;
    return await weightsOf(engine);
  } finally {
    await engine.dispose();
  }
}

it('a run whose data is loaded ahead has the bits of one whose data is in memory, interrupted or not', async () => {
  const straight = await train(9, memory, 'memory');
  expect(await train(9, later, 'ahead', { prefetch: 3 })).toEqual(straight);
  await train(4, later, 'cut', { prefetch: 3 });
  expect(await train(9, memory, 'cut')).toEqual(straight);
});

it('a run over a stream resumes at its item', async () => {
  const straight = await train(9, stream, 'stream');
  await train(4, stream, 'cut-stream');
  expect(await train(9, stream, 'cut-stream')).toEqual(straight);
});

it('data that is another than that of the checkpoint is refused', async () => {
  await train(1, memory, 'other');
  await expect(train(2, stream, 'other')).rejects.toThrow('cursor: expected one for a stream, got one for a dataset of 11 samples');
  await expect(train(2, { ...memory, length: 10 }, 'other')).rejects.toThrow('expected one for a dataset of 10 samples, got one for 11');
});
