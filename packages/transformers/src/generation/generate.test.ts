import { Device, LocalStore, noGrad, ReferenceBackend, scope, tensor } from '@deepspeed-ts/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DecoderLM } from '../decoder/decoder.js';
import { gpt2 } from '../families/gpt2.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { generate, generateText } from './generate.js';
import type { GenerateOptions } from './settings.js';

const VOCABULARY = 26;
/** Tokens are letters. */
const letters = {
  eosTokenId: undefined,
  encode: (text: string) => [...text].map((letter) => letter.charCodeAt(0) - 97),
  decode: (ids: Iterable<number>) => [...ids].map((id) => String.fromCharCode(97 + id)).join(''),
} as unknown as Tokenizer;

let device: Device;
let model: DecoderLM & { generationConfig?: Record<string, unknown> };
let store: LocalStore;
beforeEach(() => {
  device = new Device(new ReferenceBackend());
  model = new DecoderLM(gpt2({ vocabSize: VOCABULARY, layers: 1, heads: 2, dim: 8, context: 32, initStd: 0.6 }));
  store = new LocalStore(model, device, { seed: 4 });
});
afterEach(() => {
  store.dispose();
  model.dispose();
  expect(device.describeLive()).toEqual([]);
});

const textOf = async (options: GenerateOptions = {}) =>
  (await generate(model, 'hello', { tokenizer: letters, maxNewTokens: 12, ...options }))[0]!;

/** The scores after these tokens. */
function scores(ids: readonly number[]): number[] {
  return scope(() => [
    ...noGrad(() => model.logits(tensor(device, ids, 'i32', [1, ids.length])))
      .readSync()
      .data.slice(-VOCABULARY),
  ]);
}

/** What comes first by scores that `change` has gone over. */
function likeliest(prompt: readonly number[], count: number, change: (scores: number[], ids: readonly number[]) => number[]): string {
  const ids = [...prompt];
  for (let i = 0; i < count; i++) {
    const changed = change(scores(ids), ids);
    ids.push(changed.indexOf(Math.max(...changed)));
  }
  return letters.decode(ids.slice(prompt.length));
}

const hello = letters.encode('hello');

describe('generation', () => {
  it('goes on with the likeliest token until it has as many as it may', async () => {
    const { text, tokens, finishReason } = await textOf();
    expect(text).toBe(likeliest(hello, 12, (all) => all));
    expect(letters.decode(tokens)).toBe(text);
    expect(finishReason).toBe('length');
  });

  it('ends with any of the end tokens, but not before it has as many tokens as it must', async () => {
    const { tokens } = await textOf();
    const [end, other] = [tokens[4]!, tokens[7]!];
    const first = tokens.findIndex((token) => token === end || token === other);
    const ended = await textOf({ eosTokenId: [end, other] });
    expect(ended.finishReason).toBe('eos');
    expect(ended.tokens).toEqual(tokens.slice(0, first + 1));
    const later = await textOf({ eosTokenId: end, minNewTokens: 6, maxNewTokens: 6 });
    const forbidden = likeliest(hello, 6, (all) => all.map((score, id) => (id === end ? Number.NEGATIVE_INFINITY : score)));
    expect(later.text).toBe(forbidden);
  });

  it('ends before a stop string, which may lie across tokens', async () => {
    const { text } = await textOf();
    const stop = text!.slice(3, 5);
    const at = text!.indexOf(stop);
    const stopped = await textOf({ stop: [stop, 'not there'] });
    expect(stopped).toMatchObject({ text: text!.slice(0, at), finishReason: 'stop' });
    expect(letters.decode(stopped.tokens)).toBe(text!.slice(0, at + 2));
  });

  it('lowers the scores of what is there already by the penalty of repetition', async () => {
    const penalty = 1.4;
    const expected = likeliest(hello, 12, (all, ids) =>
      all.map((score, id) => (ids.includes(id) ? (score > 0 ? score / penalty : score * penalty) : score)),
    );
    expect((await textOf({ repetitionPenalty: penalty })).text).toBe(expected);
    expect((await textOf()).text).not.toBe(expected);
  });

  it('draws by temperature where it is above 0, and with any of the other limits; 0 takes the likeliest', async () => {
    const { text } = await textOf();
    expect((await textOf({ temperature: 0, topK: 3 })).text).toBe(text);
    expect((await textOf({ topK: 1 })).text).toBe(text);
    expect((await textOf({ topP: 0 })).text).toBe(text);
    expect((await textOf({ minP: 1 })).text).toBe(text);
    const hot = new Set<string>();
    for (let seed = 0; seed < 5; seed++) hot.add((await textOf({ temperature: 3, seed })).text!);
    expect(hot.size).toBe(5);
    expect((await textOf({ temperature: 3, seed: 2 })).text).toBe([...hot][2]);
  });

  it('takes what it is not told from generation_config.json', async () => {
    const { tokens } = await textOf();
    model.generationConfig = { eos_token_id: [tokens[2]!], max_new_tokens: 7, do_sample: true, temperature: 3, top_k: 1 };
    const written = await generate(model, 'hello', { tokenizer: letters });
    expect(written[0]!.tokens).toEqual(tokens.slice(0, tokens.indexOf(tokens[2]!) + 1));
    expect((await generate(model, hello, { eosTokenId: [] }))[0]!).toMatchObject({ tokens: tokens.slice(0, 7), text: undefined });
  });

  it('ends where learned positions end, each sequence with its own', async () => {
    const written = await generate(model, [hello, [1]], { maxNewTokens: 100 });
    expect(written.map(({ tokens, finishReason }) => [tokens.length, finishReason])).toEqual([
      [27, 'length'],
      [31, 'length'],
    ]);
  });

  it('gives its text in pieces that are the whole', async () => {
    const { text } = await textOf({ stop: 'q' });
    const pieces: string[] = [];
    for await (const piece of generateText(model, 'hello', { tokenizer: letters, maxNewTokens: 12, stop: 'q' })) pieces.push(piece);
    expect(pieces.join('')).toBe(text);
    expect(pieces.length).toBeGreaterThan(1);
  });

  it('frees its memory when nobody wants more, and when it is stopped', async () => {
    const before = device.liveBuffers;
    for await (const _ of generateText(model, 'hello', { tokenizer: letters })) break;
    expect(device.liveBuffers).toBe(before);
    const abort = new AbortController();
    const pieces: string[] = [];
    const reading = (async () => {
      for await (const piece of generateText(model, 'hello', { tokenizer: letters, signal: abort.signal })) {
        pieces.push(piece);
        if (pieces.length === 3) abort.abort(new Error('enough'));
      }
    })();
    await expect(reading).rejects.toThrow('enough');
    expect(pieces).toHaveLength(3);
    expect(device.liveBuffers).toBe(before);
  });

  it.each<[string, string | number[], GenerateOptions]>([
    ['temperature: expected a number of at least 0, got -1', 'hello', { temperature: -1 }],
    ['topP: expected a number from 0 to 1, got 2', 'hello', { topP: 2 }],
    ['maxNewTokens: expected a positive whole number, got 0', 'hello', { maxNewTokens: 0 }],
    ['repetitionPenalty: expected a positive number, got 0', 'hello', { repetitionPenalty: 0 }],
    ["stop: expected texts that are not empty, got ''", 'hello', { stop: '' }],
    ['stop: expected a tokenizer beside it', hello, { stop: 'x', tokenizer: undefined }],
    ['tokenizer: expected one, for prompt 0 is text, got none', 'hello', { tokenizer: undefined }],
    ['prompt 0: expected at least one token, got none', '', {}],
    ['prompt 0: expected fewer than 32 tokens', Array(32).fill(1), {}],
  ])('refuses what makes no sense: %s', async (message, prompt, options) => {
    await expect(generate(model, prompt, { tokenizer: letters, ...options })).rejects.toThrow(`[generate] ${message}`);
  });
});
