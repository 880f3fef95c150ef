import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataError } from 'deepspeed-ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BYTES, characters, readCorpus } from './text.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gpt-text-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const options = { tokens: 'chars', validationFraction: 0.1, context: 4 } as const;
const file = (name: string, content: string | Uint8Array) => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

describe('a vocabulary of characters', () => {
  it('numbers the characters of a text by code point, and takes those beyond 16 bits as one', () => {
    const vocabulary = characters('b😀\na\n');
    expect(vocabulary.size).toBe(4);
    expect([...vocabulary.encode('ab\n😀')]).toEqual([1, 2, 0, 3]);
    expect(vocabulary.decode([3, 0, 2])).toBe('😀\nb');
    expect(JSON.parse(JSON.stringify(vocabulary))).toEqual({ tokens: 'chars', symbols: ['\n', 'a', 'b', '😀'] });
    expect(vocabulary.start).toEqual([0]);
  });

  it('refuses a character that it has not seen', () => {
    expect(() => characters('abc').encode('abd')).toThrow('the character "d" does not occur in the training data');
  });
});

describe('a vocabulary of bytes', () => {
  it('has the 256 bytes of UTF-8', () => {
    expect(BYTES.size).toBe(256);
    expect([...BYTES.encode('é\n')]).toEqual([0xc3, 0xa9, 10]);
    expect(BYTES.decode([0xc3, 0xa9])).toBe('é');
  });
});

describe('reading a corpus', () => {
  it('trains on the first part and keeps the last for validation', () => {
    const { train, validation, vocabulary } = readCorpus(file('alphabet.txt', 'abcdefghijklmnopqrstuvwxyz'.repeat(5)), options);
    expect([train.length, validation.length]).toEqual([117, 13]);
    expect(vocabulary.decode(train.subarray(0, 3))).toBe('abc');
    expect(vocabulary.decode(validation)).toBe('nopqrstuvwxyz');
  });

  it('takes any file as bytes', () => {
    const { train, vocabulary } = readCorpus(file('noise.bin', new Uint8Array(100).fill(0xff)), { ...options, tokens: 'bytes' });
    expect([train.length, train[0], vocabulary.size]).toEqual([90, 255, 256]);
  });

  it('says what is wrong with a file that is missing, a folder, empty, short or not text', () => {
    const failure = (path: string, change: Partial<typeof options> | { context: number } = {}) => {
      try {
        readCorpus(path, { ...options, ...change });
      } catch (error) {
        expect(error).toBeInstanceOf(DataError);
        return (error as Error).message;
      }
      return 'no error';
    };
    expect(failure(join(folder, 'none.txt'))).toContain('none.txt: no such file (looked for ');
    expect(failure(folder)).toContain('it is a directory');
    expect(failure(file('empty.txt', ''))).toContain('the file is empty; expected text of at least 5 tokens in either part');
    expect(failure(file('latin1.txt', Buffer.from('caf\xe9 '.repeat(50), 'latin1')))).toContain(
      'not UTF-8; convert it, or use --tokens bytes',
    );
    expect(failure(file('short.txt', 'a'.repeat(40)))).toContain(
      '4 of its 40 tokens are for validation, fewer than one window: expected at least 5 (--context 4 and the token after it)',
    );
    expect(failure(file('tiny.txt', 'abc'), { context: 8 })).toContain('2 of its 3 tokens are for training');
  });
});
