import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { DataError } from 'deepspeed-ts';

/** What stands for what: token i is `symbols[i]`. */
export interface Vocabulary {
  readonly tokens: 'chars' | 'bytes';
  /** Number of different tokens. */
  readonly size: number;
  /** What to begin a text with: the end of a line, or the first token where there are no lines. */
  readonly start: readonly number[];
  encode(text: string): Uint16Array;
  decode(ids: Iterable<number>): string;
  /** In JSON, for whoever loads the model. */
  toJSON(): object;
}

/** A text as tokens, its first part to learn from and its last part to be judged by. */
export interface Corpus {
  readonly vocabulary: Vocabulary;
  readonly train: Uint16Array;
  readonly validation: Uint16Array;
}

/** Strings of JavaScript end at 512 Mi characters; bytes have no such end. */
const MOST_TEXT = 2 ** 28;

/**
 * Reads and splits a text. The vocabulary of characters is that of the whole file.
 *
 * @param context - Tokens of a window; a window and what follows its last token must fit into either part.
 * @throws DataError when the file is missing, empty, not UTF-8 (for characters) or too short.
 */
export function readCorpus(path: string, options: { tokens: 'chars' | 'bytes'; validationFraction: number; context: number }): Corpus {
  const { tokens, validationFraction, context } = options;
  const bytes = readBytes(path);
  if (bytes.length === 0)
    throw new DataError(`--data ${path}: the file is empty; expected text of at least ${context + 1} tokens in either part`);
  const text = tokens === 'chars' ? decodeText(bytes, path) : '';
  const vocabulary = tokens === 'chars' ? characters(text, path) : BYTES;
  const ids = tokens === 'chars' ? vocabulary.encode(text) : Uint16Array.from(bytes);
  const boundary = Math.floor(ids.length * (1 - validationFraction));
  const corpus = { vocabulary, train: ids.subarray(0, boundary), validation: ids.subarray(boundary) };
  for (const part of ['train', 'validation'] as const) {
    const { length } = corpus[part];
    if (length >= context + 1) continue;
    throw new DataError(
      `--data ${path}: ${length} of its ${ids.length} tokens are for ${part === 'train' ? 'training' : 'validation'}, fewer than one window: expected at least ` +
        `${context + 1} (--context ${context} and the token after it); give more text, a smaller --context or another --val-fraction`,
    );
  }
  return corpus;
}

function readBytes(path: string): Buffer {
  try {
    if (statSync(path).isDirectory()) throw Object.assign(new Error('it is a directory'), { code: 'EISDIR' });
    return readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'it is a directory' : message;
    throw new DataError(`--data ${path}: ${reason} (looked for ${resolve(path)}); expected a text file`);
  }
}

function decodeText(bytes: Buffer, path: string): string {
  if (bytes.length > MOST_TEXT)
    throw new DataError(`--data ${path}: ${bytes.length} bytes are too many for --tokens chars; use --tokens bytes`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new DataError(`--data ${path}: the file is not UTF-8; convert it, or use --tokens bytes`);
  }
}

/** One token for each different character, in order of code points. */
export function characters(text: string, path = 'text'): Vocabulary {
  const symbols = [...new Set(text)].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!);
  if (symbols.length > 2 ** 16)
    throw new DataError(`--data ${path}: ${symbols.length} different characters are too many; use --tokens bytes`);
  const ids = new Map(symbols.map((symbol, id) => [symbol, id]));
  return {
    tokens: 'chars',
    size: symbols.length,
    start: [ids.get('\n') ?? 0],
    encode(part) {
      const out = new Uint16Array(part.length);
      let n = 0;
      for (const symbol of part) {
        const id = ids.get(symbol);
        if (id === undefined) throw new DataError(`the character ${JSON.stringify(symbol)} does not occur in the training data`);
        out[n++] = id;
      }
      return out.subarray(0, n);
    },
    decode: (part) => Array.from(part, (id) => symbols[id]).join(''),
    toJSON: () => ({ tokens: 'chars', symbols }),
  };
}

export const BYTES: Vocabulary = {
  tokens: 'bytes',
  size: 256,
  start: [10],
  encode: (text) => Uint16Array.from(Buffer.from(text, 'utf8')),
  decode: (ids) => Buffer.from([...ids]).toString('utf8'),
  toJSON: () => ({ tokens: 'bytes' }),
};
