import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { AutoTokenizer } from './auto-tokenizer.js';
import { BYTE_VOCABULARY, writeByteTokenizer } from './byte-tokenizer.js';
import type { Tokenizer } from './tokenizer.js';

const folder = mkdtempSync(join(tmpdir(), 'bytes-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let tokenizer: Tokenizer;
beforeAll(async () => {
  await writeByteTokenizer(folder);
  tokenizer = await AutoTokenizer.fromPretrained(folder);
});

it('turns any text into its bytes and back', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      const ids = tokenizer.encode(text);
      expect(ids).toEqual([...Buffer.from(text, 'utf8')]);
      expect(tokenizer.decode(ids)).toBe(text);
    }),
  );
});

it('has tokens that end and pad, and a chat template', () => {
  expect([tokenizer.vocabSize, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([BYTE_VOCABULARY, 256, 257]);
  const text = tokenizer.applyChatTemplate([{ role: 'user', content: 'hi' }], { addGenerationPrompt: true });
  expect(text).toBe('user: hi<|turn|>\nassistant: ');
  expect(tokenizer.encode(text)[8]).toBe(258);
});
