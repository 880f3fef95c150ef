import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AutoTokenizer, type Tokenizer } from '@deepspeed-ts/transformers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goldenFolder, readJson } from '../golden.js';

const golden = goldenFolder();

describe.skipIf(!golden).each(['gpt2', 'llama', 'llama3-rope', 'qwen2'])('the tokenizer of the reference %s', (family) => {
  const folder = join(golden!, 'models', family);
  const cases = golden ? readJson<{ text: string; ids: number[]; decoded: string }[]>(join(golden, 'tokenizer-cases.json')) : [];
  let tokenizer: Tokenizer;

  beforeAll(async () => {
    tokenizer = await AutoTokenizer.fromPretrained(folder);
  });

  it.each(cases)('gives the ids and the text of the reference: $text', ({ text, ids, decoded }) => {
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(decoded);
  });

  it('knows its special tokens and lengths', () => {
    expect(tokenizer).toMatchObject({
      padTokenId: 1,
      bosTokenId: 0,
      eosTokenId: 0,
      modelMaxLength: 128,
      vocabSize: 1024,
      paddingSide: 'right',
    });
    expect(tokenizer.unkTokenId).toBeUndefined();
    expect(tokenizer.decode([0, 673, 1], { skipSpecialTokens: true })).toBe(tokenizer.decode([673]));
  });
});

describe.skipIf(!golden)('texts in rows', () => {
  const folder = golden ? join(golden, 'models', 'gpt2') : '';
  const load = (options = {}) => AutoTokenizer.fromPretrained(folder, options);
  const texts = ['First Citizen', 'we proceed any further'];

  it('are padded on the right, or on the left, where positions count from the first token', async () => {
    const tokenizer = await load();
    const [a, b] = texts.map((text) => tokenizer.encode(text)) as [number[], number[]];
    const pad = Array(b.length - a.length).fill(1);
    const right = tokenizer.encodeBatch(texts);
    expect(right.inputIds.shape).toEqual([2, b.length]);
    expect([...right.inputIds.data]).toEqual([...a, ...pad, ...b]);
    expect([...right.attentionMask.data]).toEqual([...a.map(() => 1), ...pad.map(() => 0), ...b.map(() => 1)]);
    const left = tokenizer.encodeBatch(texts, { paddingSide: 'left' });
    expect([...left.inputIds.data]).toEqual([...pad, ...a, ...b]);
    expect([...left.positionIds.data]).toEqual([...pad.map(() => 0), ...a.keys(), ...b.keys()]);
  });

  it('are cut to a length, filled up to it, or to a multiple', async () => {
    const tokenizer = await load({ modelMaxLength: 3 });
    expect(tokenizer.encodeBatch(texts, { truncation: true }).inputIds.shape).toEqual([2, 3]);
    expect(tokenizer.encodeBatch(texts, { truncation: true, maxLength: 2 }).inputIds.shape).toEqual([2, 2]);
    expect(tokenizer.encodeBatch(['a'], { padding: 'maxLength', maxLength: 9 }).inputIds.shape).toEqual([1, 9]);
    expect(tokenizer.encodeBatch(['a'], { padToMultipleOf: 8 }).inputIds.shape).toEqual([1, 8]);
    expect(() => tokenizer.encodeBatch(texts, { padding: false })).toThrow(/do not form rows of one length/);
  });

  it('need a pad token, and the error says how to have one', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tokenizer-'));
    afterAll(() => rmSync(directory, { recursive: true }));
    cpSync(join(folder, 'tokenizer.json'), join(directory, 'tokenizer.json'));
    writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|endoftext|>' }));
    const tokenizer = await AutoTokenizer.fromPretrained(directory);
    expect(() => tokenizer.encodeBatch(texts)).toThrow(/no pad token: load it with .*padToken: "<\|endoftext\|>"/);
    expect(tokenizer.encodeBatch(['a']).inputIds.shape).toEqual([1, 1]);
    const padded = await AutoTokenizer.fromPretrained(directory, { padToken: '<|endoftext|>' });
    expect(padded.padTokenId).toBe(0);
    // Which stays so when it is saved.
    await padded.savePretrained(join(directory, 'saved'));
    const saved = await AutoTokenizer.fromPretrained(join(directory, 'saved'));
    expect(saved.encodeBatch(texts)).toEqual(padded.encodeBatch(texts));
    await expect(AutoTokenizer.fromPretrained(directory, { padToken: '[PAD]' })).rejects.toThrow(/the vocabulary has no token '\[PAD\]'/);
  });
});

it('is refused with what is there where there is no tokenizer.json', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tokenizer-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  await expect(AutoTokenizer.fromPretrained(join(directory, 'none'))).rejects.toThrow(/there is no such directory, and it can't be the id/);
  writeFileSync(join(directory, 'tokenizer.model'), '');
  await expect(AutoTokenizer.fromPretrained(directory)).rejects.toThrow(
    /there is no tokenizer.json; it has tokenizer.model of an older kind/,
  );
  writeFileSync(join(directory, 'tokenizer.json'), '{"model": {}}');
  await expect(AutoTokenizer.fromPretrained(directory)).rejects.toThrow(/tokenizer.json can't be used/);
  expect(readFileSync(join(directory, 'tokenizer.json'), 'utf8')).toContain('model');
});
