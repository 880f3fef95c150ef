import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { uniforms, WorldOfOne } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { DecoderLM, decoderConfig } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { close, hashOf } from '../zero/training-run.js';
import { gpus } from './devices.js';

const [VOCABULARY, CONTEXT, BATCH, STEPS] = [256, 72, 6, 200];

interface Choice {
  readonly eightBits: boolean;
  readonly stage?: number;
  readonly recompute?: boolean;
  readonly steps?: number;
  /** Save after this step and go on with a new engine. */
  readonly resumeAfter?: number;
}

/** A small Llama on bytes that have something to learn. */
async function trainLlama({ resumeAfter = -1, ...choice }: Choice) {
  const { steps = STEPS } = choice;
  let engine = await openLlama(choice);
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const draws = uniforms({ seed: 1, step }, 0, BATCH * CONTEXT);
    const data = Int32Array.from(draws, (u) => Math.floor(u * u * VOCABULARY));
    const shape = [BATCH, CONTEXT];
    losses.push(await engine.trainBatch([{ inputIds: { data, shape }, labels: { data, shape } }]));
    if (step === resumeAfter) {
      const folder = mkdtempSync(join(tmpdir(), 'deepspeed-fp8-'));
      await (await engine.saveCheckpoint(folder)).finished;
      await close(engine);
      engine = await openLlama(choice);
      await engine.loadCheckpoint(folder);
      rmSync(folder, { recursive: true });
    }
  }
  const hash = await hashOf(engine);
  await close(engine);
  return { losses, hash };
}

async function openLlama({ eightBits, stage = 0, recompute = false }: Choice) {
  const model = new DecoderLM(
    decoderConfig({
      model_type: 'llama',
      vocab_size: VOCABULARY,
      hidden_size: 128,
      num_hidden_layers: 3,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      intermediate_size: 352,
      max_position_embeddings: CONTEXT,
      rms_norm_eps: 1e-5,
      rope_theta: 1e4,
      tie_word_embeddings: false,
    }),
  );
  model.recompute = recompute;
  const { engine } = await initialize({
    model,
    backend: cudaBackend(),
    communicator: new WorldOfOne(),
    seed: 5,
    config: {
      train_micro_batch_size_per_gpu: BATCH,
      gradient_clipping: 1,
      bf16: { enabled: true },
      fp8: { enabled: eightBits, amax_history_len: 16 },
      zero_optimization: { stage },
      optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.95], weight_decay: 0.1 } },
    },
  });
  return engine;
}

describe.skipIf(gpus() === 0)('training in 8 bits on a GPU', () => {
  test('keeps within 1 % of the loss of bf16 over 200 steps', async () => {
    const [wide, narrow] = [await trainLlama({ eightBits: false }), await trainLlama({ eightBits: true })];
    expect(narrow.hash).not.toBe(wide.hash);
    const lastTen = ({ losses }: typeof wide) => losses.slice(-10).reduce((a, b) => a + b, 0) / 10;
    expect(Math.abs(lastTen(narrow) / lastTen(wide) - 1)).toBeLessThan(0.01);
    expect(lastTen(narrow)).toBeLessThan(narrow.losses[0]!);
  });

  test('has the same bits at every stage, when blocks are recomputed, and once more', async () => {
    const first = await trainLlama({ eightBits: true, steps: 12 });
    for (const choice of [{ stage: 1 }, { stage: 2 }, { stage: 3 }, { recompute: true }, {}])
      expect(await trainLlama({ eightBits: true, steps: 12, ...choice }), JSON.stringify(choice)).toEqual(first);
  });

  test('goes on from a checkpoint with the bits of training that was not interrupted', async () => {
    const straight = await trainLlama({ eightBits: true, steps: 12 });
    const resumed = await trainLlama({ eightBits: true, steps: 12, resumeAfter: 5 });
    expect(resumed).toEqual(straight);
  });
});

test('a device without 8-bit floats is refused by name', async () => {
  const model = new DecoderLM(
    decoderConfig({
      model_type: 'llama',
      vocab_size: 32,
      hidden_size: 32,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 2,
      intermediate_size: 32,
      max_position_embeddings: 8,
      rms_norm_eps: 1e-5,
      rope_theta: 1e4,
      tie_word_embeddings: false,
    }),
  );
  const config = { train_micro_batch_size_per_gpu: 1, optimizer: { type: 'AdamW', params: { lr: 1e-3 } }, fp8: { enabled: true } };
  const on = { model, backend: cpuBackend(), communicator: new WorldOfOne() };
  await expect(initialize({ ...on, config: { ...config, bf16: { enabled: true } } })).rejects.toThrow(
    /fp8\.enabled: expected a GPU with 8-bit/,
  );
  await expect(initialize({ ...on, config })).rejects.toThrow(/fp8\.enabled: expected "bf16"/);
});
