import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, test } from 'vitest';
import type { TokenSample } from './collate.js';
import { type LoadDatasetOptions, loadDataset, openDataset, type TokenDataset } from './load-dataset.js';
import { byteTokenizer, decode } from './test-tokenizer.js';

const tokenizer = byteTokenizer();
const folder = mkdtempSync(join(tmpdir(), 'dataset-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const load = (rows: readonly Record<string, unknown>[], options: Partial<LoadDatasetOptions> = {}) =>
  loadDataset(rows, { tokenizer, maxLength: 64, ...options });
const samplesOf = (data: TokenDataset) => Array.from({ length: data.length }, (_, i) => data.get(i));
/** What each position should say; '.' where nothing. */
const said = ({ labels }: TokenSample) => Array.from(labels!, (label) => (label === -100 ? '.' : decode([label]))).join('');

describe('a dataset', () => {
  it('says at each position the next token, and nothing before an answer begins', async () => {
    const data = await load([{ prompt: 'ab', completion: 'cd' }, { text: 'xy' }]);
    const [answer, text] = samplesOf(data);
    expect(decode(answer!.inputIds)).toBe('<s>abcd</s>');
    expect(said(answer!)).toBe('..cd</s>.');
    expect(said(text!)).toBe('xy</s>.');
    expect(data.report).toEqual({ records: 2, truncated: 0, split: 0, leftOut: 0, tokens: 10, learned: 6 });
  });

  it('packs documents into rows of which none sees another', async () => {
    const data = await load([{ text: 'abc' }, { prompt: 'p', completion: 'c' }, { text: 'de' }], { pack: true, maxLength: 9 });
    expect(samplesOf(data).map(({ inputIds }) => decode(inputIds))).toEqual(['<s>abc</s><s>pc</s>', '<s>de</s>']);
    const [packed, alone] = samplesOf(data);
    expect(said(packed!)).toBe('abc</s>..c</s>.');
    expect([...packed!.positionIds!]).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3]);
    expect(alone!.positionIds).toBeUndefined();
  });

  it('cuts what is too long, and splits text where it packs', async () => {
    const rows = [{ text: 'abcdefghij' }, { prompt: 'p', completion: 'abcdefghij' }];
    const cut = await load(rows, { maxLength: 5 });
    expect(samplesOf(cut).map(({ inputIds }) => decode(inputIds))).toEqual(['<s>abcd', '<s>pabc']);
    expect(cut.report).toMatchObject({ truncated: 2, split: 0, leftOut: 0 });
    const packed = await load(rows, { maxLength: 5, pack: true });
    expect(
      samplesOf(packed)
        .map(({ inputIds }) => decode(inputIds))
        .sort(),
    ).toEqual(['<s>abcd', '<s>pabc', 'efghi', 'j</s>']);
    expect(packed.report).toMatchObject({ truncated: 1, split: 1 });
  });

  it('leaves out what has nothing to learn', async () => {
    const data = await load([{ prompt: 'a long prompt', completion: 'x' }, { text: 'ab' }], { maxLength: 8 });
    expect(data.length).toBe(1);
    expect(data.report).toMatchObject({ records: 2, truncated: 1, leftOut: 1 });
  });

  it.each([
    ['no record', [], {}, 'the data is empty: expected at least one record'],
    [
      'answers that all come too late',
      [{ prompt: 'a long prompt', completion: 'x' }],
      { maxLength: 8 },
      'none of its 1 records has a token to learn within 8 tokens; 1 of them have more than maxLength, 8 tokens, of which what is learned comes after: raise maxLength',
    ],
    ['a row of one token', [{ text: 'x' }], { maxLength: 1 }, 'maxLength: expected an integer of at least 2 tokens, got 1'],
    [
      'a record without text',
      [{ text: 'x' }, { body: 'y' }],
      {},
      'record 1: expected a column text, prompt and completion, or messages; got body',
    ],
  ])('of %s is refused', async (_, rows, options, message) => {
    await expect(load(rows, options)).rejects.toThrow(message);
  });

  it('that is not held in memory has the same rows', async () => {
    const path = join(folder, 'lazy.jsonl');
    const rows = [{ text: 'abc' }, { prompt: 'ab', completion: 'a long answer' }];
    writeFileSync(path, rows.map((row) => JSON.stringify(row)).join('\n'));
    const lazy = await openDataset(path, { tokenizer, maxLength: 8 });
    const held = samplesOf(await loadDataset(path, { tokenizer, maxLength: 8 }));
    expect(await Promise.all([lazy.get(0), lazy.get(1)])).toEqual(held);
  });
});

/** A tokenizer.json of a few words. */
function writeTokenizer(): string {
  const vocab = Object.fromEntries(['<unk>', '<eos>', 'line', 'word', '?', '!', ','].map((token, id) => [token, id]));
  const eos = { id: 1, content: '<eos>', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const model = { type: 'WordLevel', vocab, unk_token: '<unk>' };
  const tokenizer = {
    version: '1.0',
    added_tokens: [eos],
    normalizer: null,
    pre_tokenizer: { type: 'Whitespace' },
    post_processor: null,
    decoder: null,
    model,
  };
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<eos>' }));
  return folder;
}

test('threads make the rows that one thread makes, and name the line that is wrong', async () => {
  const path = join(folder, 'many.jsonl');
  const rows = Array.from({ length: 2500 }, (_, i) =>
    JSON.stringify(i % 3 === 0 ? { text: `line ${i}, ${'word '.repeat(i % 9)}` } : { prompt: `${i}? `, completion: `${i}!` }),
  );
  writeFileSync(path, rows.join('\n'));
  const options = { tokenizer: writeTokenizer(), maxLength: 24, pack: true };
  const one = await loadDataset(path, options);
  const two = await loadDataset(path, { ...options, threads: 2 });
  expect(two.report).toEqual(one.report);
  expect(samplesOf(two)).toEqual(samplesOf(one));
  writeFileSync(path, [...rows.slice(0, 2000), '{"text": ', ...rows.slice(2000)].join('\n'));
  await expect(loadDataset(path, { ...options, threads: 2 })).rejects.toThrow(`${path}:2001: expected a line of JSON`);
});
