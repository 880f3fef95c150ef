import { type Batch, uniforms } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { expect } from 'vitest';
import { type InitializeOptions, initialize } from '../initialize.js';
import type { DeepSpeedEngine } from './engine.js';

const VOCABULARY = 17;
const CONTEXT = 6;

export interface TinyOptions extends Partial<InitializeOptions> {
  readonly dropout?: number;
}

export function tinyModel(dropout = 0): DecoderLM {
  return new DecoderLM(gpt2({ vocabSize: VOCABULARY, layers: 1, heads: 2, dim: 8, context: CONTEXT, dropout }));
}

/** A step small enough for a test: two sequences of random tokens. */
export function tinyBatch(seed: number): Batch {
  const shape = [2, CONTEXT];
  const data = Int32Array.from(uniforms({ seed }, 0, 2 * CONTEXT), (u) => Math.floor(u * VOCABULARY));
  return { inputIds: { data, shape }, labels: { data, shape } };
}

/** Runs `body` with an engine over a tiny GPT, disposes it, and checks that nothing stays alive. */
export async function withEngine<T>(config: object, body: (engine: DeepSpeedEngine) => Promise<T>, options: TinyOptions = {}): Promise<T> {
  const model = (options.model as DecoderLM | undefined) ?? tinyModel(options.dropout);
  const { engine } = await initialize({ ...options, model, config: { ...usable, ...config } });
  try {
    return await body(engine);
  } finally {
    await engine.dispose();
    expect(engine.device.describeLive(), 'buffers alive after dispose()').toEqual([]);
  }
}

export const usable = {
  train_micro_batch_size_per_gpu: 2,
  optimizer: { type: 'AdamW', params: { lr: 1e-2, weight_decay: 0.1 } },
};

/** Every weight, flat. */
export async function weightsOf(engine: DeepSpeedEngine): Promise<number[]> {
  const all: number[] = [];
  for await (const [, { data }] of engine.weights()) all.push(...data);
  return all;
}
