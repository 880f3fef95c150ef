import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type HostTensor, hostTensor, namedParameters, normals, writeSafetensors } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig } from '@deepspeed-ts/transformers';
import { afterAll } from 'vitest';

/** A folder that is gone when the tests of the file are through. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'pretrained-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export const tinyLlama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 24,
  hidden_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  intermediate_size: 20,
  max_position_embeddings: 32,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
};

export const tinyGpt2 = { model_type: 'gpt2', vocab_size: 17, n_layer: 2, n_head: 2, n_embd: 8, n_positions: 16 };

export type Tensors = Map<string, HostTensor>;

/** Values for every parameter of a config's model, in f32 or another dtype. */
export function tensorsOf(config: Readonly<Record<string, unknown>>, dtype: HostTensor['dtype'] = 'f32'): Tensors {
  const parameters = namedParameters(new DecoderLM(decoderConfig(config)));
  return new Map(
    [...parameters].map(([name, { shape, numel }], stream) => [
      name,
      hostTensor(
        shape,
        dtype,
        normals({ seed: 7, stream }, 0, numel).map((z) => z / 10),
      ),
    ]),
  );
}

/** One safetensors file. */
export async function writeTensors(path: string, tensors: Tensors): Promise<void> {
  const plans = [...tensors].map(([name, { shape, dtype }]) => ({ name, shape, dtype }));
  await writeSafetensors(
    path,
    plans,
    (async function* () {
      yield* tensors;
    })(),
  );
}

/** A model directory with its weights in as many files as asked for. */
export async function writeModel(directory: string, config: object, tensors: Tensors, shards = 1): Promise<string> {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  if (shards === 1) {
    await writeTensors(join(directory, 'model.safetensors'), tensors);
    return directory;
  }
  const fileOf = (i: number) => `model-0000${(i % shards) + 1}-of-0000${shards}.safetensors`;
  const all = [...tensors];
  for (let shard = 0; shard < shards; shard++)
    await writeTensors(join(directory, fileOf(shard)), new Map(all.filter((_, i) => i % shards === shard)));
  const weight_map = Object.fromEntries(all.map(([name], i) => [name, fileOf(i)]));
  writeFileSync(join(directory, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map }));
  return directory;
}
