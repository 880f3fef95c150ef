import { createHash } from 'node:crypto';
import { uniforms } from '@deepspeed-ts/core';
import { DecoderLM, gpt2, type TokenSample } from '@deepspeed-ts/transformers';
import { type DeepSpeedEngine, Trainer, type TrainerOptions } from 'deepspeed-ts';
import { expect } from 'vitest';

export const VOCABULARY = 29;

export function tinyModel(dropout = 0): DecoderLM {
  return new DecoderLM(gpt2({ vocabSize: VOCABULARY, layers: 2, heads: 2, dim: 16, context: 16, dropout }));
}

/** Rows of 3 to 14 tokens, of which the first ones have no label. */
export function rows(count: number, seed = 1): TokenSample[] {
  return Array.from({ length: count }, (_, i) => {
    const u = uniforms({ seed: 1000 * seed + i }, 0, 16);
    const length = 3 + Math.floor(u[15]! * 12);
    const inputIds = Int32Array.from(u.slice(0, length), (x) => Math.floor(x * VOCABULARY));
    const prompt = Math.floor(u[14]! * (length - 2));
    const labels = Int32Array.from({ length }, (_, t) => (t < prompt || t === length - 1 ? -100 : inputIds[t + 1]!));
    return { inputIds, labels };
  });
}

export function datasetOf<T>(list: readonly T[]) {
  return { length: list.length, get: (i: number) => list[i]! };
}

/** Every master weight, as a hash. Every rank calls it. */
export async function hashOf(trainer: Trainer): Promise<string> {
  const hash = createHash('sha256');
  for await (const [name, { data }] of (trainer.engine as DeepSpeedEngine).weights()) hash.update(name).update(Float64Array.from(data));
  return hash.digest('hex');
}

/** Runs `body` with a Trainer that says nothing, and gives everything back. */
export async function withTrainer<T>(options: Partial<TrainerOptions>, body: (trainer: Trainer) => Promise<T>): Promise<T> {
  const { args, ...rest } = options;
  const trainer = new Trainer({
    model: tinyModel(),
    trainDataset: datasetOf(rows(24)),
    ...rest,
    args: {
      perDeviceTrainBatchSize: 2,
      learningRate: 1e-2,
      saveStrategy: 'no',
      disableTqdm: true,
      useCpu: process.env.DEEPSPEED_TS_DEVICE !== 'cuda',
      ...args,
    },
  });
  try {
    const result = await body(trainer);
    const { device } = trainer.engine;
    await trainer.dispose();
    expect(device.describeLive(), 'buffers alive after dispose()').toEqual([]);
    return result;
  } finally {
    await trainer.dispose();
  }
}
