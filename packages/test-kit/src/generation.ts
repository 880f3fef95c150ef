import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Backend, type Device, type FloatDType, LocalStore, noGrad, scope, tensor, write } from '@deepspeed-ts/core';
import { type DecoderConfig, DecoderLM, decoderConfig, type GenerateOptions, generate, gpt2 } from '@deepspeed-ts/transformers';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { goldenFolder, readJson, readTensors, relativeError } from './golden.js';
import { withDevice } from './with-device.js';

/** Decoders that differ in what a cache has to respect. Weights are large, so that a wrong key changes the next token. */
const models: Readonly<Record<string, DecoderConfig>> = {
  'with learned positions': gpt2({ vocabSize: 61, layers: 2, heads: 2, dim: 32, context: 96, initStd: 0.4 }),
  'with rotary positions and grouped heads': llama({}),
  'with a sliding window': llama({ model_type: 'mistral', sliding_window: 7 }),
  'of sparse experts': llama({ model_type: 'mixtral', num_local_experts: 4, num_experts_per_tok: 2 }),
  'with normalised query and key heads': llama({ model_type: 'qwen3', head_dim: 16 }),
};

function llama(more: Readonly<Record<string, unknown>>): DecoderConfig {
  return decoderConfig({
    model_type: 'llama',
    vocab_size: 61,
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 48,
    max_position_embeddings: 96,
    initializer_range: 0.4,
    ...more,
  });
}

/** Tests that models of known weights, and such of other kinds, write on a backend what they have to. */
export function generation(name: string, open: () => Backend): void {
  for (const family of ['gpt2', 'llama', 'llama3-rope', 'qwen2'])
    knownModel(`on ${name} a ${family} with the weights of the reference`, goldenFolder('models', family), open);
  for (const variant of readdirSync(families).sort())
    knownModel(`on ${name} a tiny ${variant} with the weights of transformers`, join(families, variant), open);
  knownModel(`on ${name} a tiny mixtral with the weights of transformers`, join(families, '../mixtral'), open);

  describe.each(Object.entries(models))(`on ${name} a model %s`, (_, config) => {
    const run = <T>(body: (lm: DecoderLM, device: Device) => Promise<T>, dtype: FloatDType = 'f32') =>
      withDevice(open(), async (device) => {
        const lm = new DecoderLM(config);
        const store = new LocalStore(lm, device, { dtype, seed: 3 });
        const result = await body(lm, device);
        store.dispose();
        lm.dispose();
        return result;
      });

    test('writes with a cache what it writes without one, for prompts of any lengths together', () =>
      run(async (lm, device) => {
        await fc.assert(
          fc.asyncProperty(prompts, async (prompts) => {
            const written = await generate(lm, prompts, { maxNewTokens: 12 });
            for (const { prompt, tokens } of written) expect(tokens).toEqual(withoutCache(lm, device, prompts[prompt]!, 12));
          }),
          { numRuns: 8, seed: 7 },
        );
      }));

    test('draws the same for a prompt alone, among others, and where it goes on from what it wrote', () =>
      run(async (lm) => {
        const options: GenerateOptions = { maxNewTokens: 10, temperature: 1.5, topK: 20, seed: 11 };
        const [first, second, third] = [[4, 8, 15], [16, 23, 42, 5, 9, 1, 7], [3]];
        const together = await generate(lm, [first!, second!, third!], options);
        expect(together.map(({ tokens }) => tokens.length)).toEqual([10, 10, 10]);
        const alone = await generate(lm, second!, { ...options, firstRow: 1 });
        expect(alone[0]!.tokens).toEqual(together[1]!.tokens);
        const goneOn = await generate(lm, [...second!, ...alone[0]!.tokens.slice(0, 4)], { ...options, firstRow: 1, maxNewTokens: 6 });
        expect(goneOn[0]!.tokens).toEqual(together[1]!.tokens.slice(4));
      }));

    test('gives several sequences of each prompt, as if it had been given so many times', () =>
      run(async (lm) => {
        const options: GenerateOptions = { maxNewTokens: 8, temperature: 2, topP: 0.9, seed: 5, repetitionPenalty: 1.2 };
        const [a, b] = [[1, 2, 3, 4], [9]];
        const several = await generate(lm, [a!, b!], { ...options, numReturnSequences: 3 });
        expect(several.map(({ prompt }) => prompt)).toEqual([0, 0, 0, 1, 1, 1]);
        const repeated = await generate(lm, [a!, a!, a!, b!, b!, b!], options);
        expect(several.map(({ tokens }) => tokens)).toEqual(repeated.map(({ tokens }) => tokens));
        expect(new Set(several.slice(0, 3).map(({ tokens }) => `${tokens}`)).size).toBe(3);
      }));

    test.each(['bf16', 'f16'] as const)('writes in %s from a cache of that dtype', (dtype) =>
      run(async (lm, device) => {
        const cache = lm.createCache({ lengths: [3], capacity: 5 });
        const ids = [5, 6, 7, 8, 9];
        const stepped = scope(() => {
          const scores = [lm.step(tensor(device, ids.slice(0, 3), 'i32', [1, 3]), cache).readSync().data];
          for (const id of ids.slice(3)) scores.push(lm.step(tensor(device, [id], 'i32', [1, 1]), cache).readSync().data);
          return scores;
        });
        cache.dispose();
        const whole = scope(() => noGrad(() => lm.logits(tensor(device, ids, 'i32', [1, 5]))).readSync().data);
        for (const [i, scores] of stepped.entries()) {
          const expected = whole.subarray((2 + i) * config.vocabSize, (3 + i) * config.vocabSize);
          expect(relativeError(scores, expected)).toBeLessThan(dtype === 'bf16' ? 0.05 : 0.01);
        }
      }, dtype),
    );
  });
}

const families = fileURLToPath(new URL('../golden/families', import.meta.url));

function knownModel(title: string, folder: string | undefined, open: () => Backend): void {
  describe(title, () => {
    const withModel = (body: (lm: DecoderLM, golden: ReturnType<typeof readTensors>, device: Device) => Promise<void>) =>
      withDevice(open(), async (device) => {
        const lm = new DecoderLM(decoderConfig(readJson(join(folder!, 'config.json'))));
        const store = new LocalStore(lm, device);
        const weights = readTensors(join(folder!, 'model.safetensors'));
        for (const [name, value] of store.stateDict()) write(value, weights.get(name)!);
        await body(lm, readTensors(join(folder!, 'golden.safetensors')), device);
        store.dispose();
        lm.dispose();
      });

    test.skipIf(!folder)('writes what the reference writes, token for token, or what it writes itself without a cache', () =>
      withModel(async (lm, golden, device) => {
        const { data, shape } = golden.get('greedy') ?? golden.get('input_ids')!;
        const rows = Array.from({ length: shape[0]! }, (_, row) => [...data.subarray(row * shape[1]!, (row + 1) * shape[1]!)]);
        // Without a recorded continuation: prompts of several lengths, short enough that no scaling changes on the way.
        const length = golden.has('greedy') ? 8 : 5;
        const prompts = rows.map((ids, row) => ids.slice(0, length - row * Number(!golden.has('greedy'))));
        const expected = golden.has('greedy')
          ? rows.map((ids) => ids.slice(length))
          : prompts.map((prompt) => withoutCache(lm, device, prompt, 10));
        const written = await generate(lm, prompts, { maxNewTokens: expected[0]!.length, eosTokenId: [] });
        expect(written.map(({ tokens }) => tokens)).toEqual(expected);
      }),
    );

    test.skipIf(!folder || folder.endsWith('mixtral'))('gives the logits of the reference after prompts that are padded on the left', () =>
      withModel(async (lm, golden, device) => {
        const { data, shape } = golden.get('left_padded_input_ids')!;
        const mask = golden.get('left_padded_mask')!.data;
        const [rows, tokens] = shape as [number, number];
        const lengths = Array.from({ length: rows }, (_, row) => mask.subarray(row * tokens, (row + 1) * tokens).reduce((a, b) => a + b));
        const cache = lm.createCache({ lengths, capacity: tokens });
        const scores = scope(() => lm.step(tensor(device, data, 'i32', [rows, tokens]), cache).readSync().data);
        cache.dispose();
        expect(relativeError(scores, golden.get('left_padded_last_logits')!.data)).toBeLessThan(1e-4);
      }),
    );

    // A scaling that depends on the length turns the keys of the whole sequence otherwise than those of its beginning.
    const { rope_parameters: rope } = folder ? readJson<{ rope_parameters?: { rope_type?: string } }>(join(folder, 'config.json')) : {};
    const byLength = rope?.rope_type === 'dynamic' || rope?.rope_type === 'longrope';

    test.skipIf(!folder || byLength)('gives the logits of the reference token by token', () =>
      withModel(async (lm, golden, device) => {
        const { data, shape } = golden.get('input_ids')!;
        const [rows, tokens] = shape as [number, number];
        const { vocabSize } = lm.config;
        const cache = lm.createCache({ lengths: Array<number>(rows).fill(4), capacity: tokens });
        const column = (from: number, to: number) =>
          tensor(
            device,
            Array.from({ length: rows }, (_, row) => [...data.subarray(row * tokens + from, row * tokens + to)]).flat(),
            'i32',
            [rows, to - from],
          );
        const logits = golden.get('logits')!.data;
        for (let at = 4; at <= tokens; at++) {
          const scores = scope(() => lm.step(at === 4 ? column(0, 4) : column(at - 1, at), cache).readSync().data);
          const expected = Array.from({ length: rows }, (_, row) => [
            ...logits.subarray((row * tokens + at - 1) * vocabSize).subarray(0, vocabSize),
          ]).flat();
          expect(relativeError(scores, expected), `after ${at} tokens`).toBeLessThan(1e-4);
        }
        cache.dispose();
      }),
    );
  });
}

const prompts = fc.array(fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 1, maxLength: 20 }), { minLength: 1, maxLength: 4 });

/** Always the likeliest token of all logits. */
function withoutCache(lm: DecoderLM, device: Device, prompt: readonly number[], count: number): number[] {
  const ids = [...prompt];
  for (let i = 0; i < count; i++) {
    const logits = scope(() => noGrad(() => lm.logits(tensor(device, ids, 'i32', [1, ids.length]))).readSync().data);
    const last = logits.subarray(logits.length - lm.config.vocabSize);
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}
