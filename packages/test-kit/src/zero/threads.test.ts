import { uniforms } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { DecoderLM, decoderConfig, gpt2 } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { afterEach, expect, test } from 'vitest';
import { close, hashOf } from './training-run.js';

const backend = cpuBackend();
const { threads } = backend;
afterEach(() => {
  backend.threads = threads;
});

const [VOCABULARY, CONTEXT, BATCH] = [200, 48, 5];
const models = {
  gpt2: gpt2({ vocabSize: VOCABULARY, layers: 2, heads: 4, dim: 96, context: CONTEXT, dropout: 0.1 }),
  llama: decoderConfig({
    model_type: 'llama',
    vocab_size: VOCABULARY,
    hidden_size: 96,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    intermediate_size: 200,
    max_position_embeddings: CONTEXT,
  }),
};

async function train(name: keyof typeof models, bf16: boolean): Promise<unknown> {
  const { engine } = await initialize({
    model: new DecoderLM(models[name]),
    backend,
    config: {
      train_micro_batch_size_per_gpu: BATCH,
      gradient_clipping: 1,
      bf16: { enabled: bf16 },
      optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    },
  });
  const losses: number[] = [];
  for (let step = 0; step < 3; step++) {
    const data = Int32Array.from(uniforms({ seed: 1, step }, 0, BATCH * CONTEXT), (u) => Math.floor(u * VOCABULARY));
    const tokens = { data, shape: [BATCH, CONTEXT] };
    losses.push(await engine.trainBatch([{ inputIds: tokens, labels: tokens }]));
  }
  const result = { losses, hash: await hashOf(engine) };
  await close(engine);
  return result;
}

// Large enough that every kernel has work for several threads, and of sizes that they can't share evenly.
test.each([
  ['gpt2', false],
  ['gpt2', true],
  ['llama', true],
] as const)('the number of threads does not show in the bits: %s, bf16 %s', async (name, bf16) => {
  const results: unknown[] = [];
  for (const count of [1, 2, 3, 5]) {
    backend.threads = count;
    results.push(await train(name, bf16));
  }
  for (const result of results) expect(result).toEqual(results[0]);
});
