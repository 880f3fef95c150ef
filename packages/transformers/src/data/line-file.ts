import { closeSync, openSync, readSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { DatasetError, fileError } from './errors.js';

const CHUNK = 4 * 2 ** 20;
const NEWLINE = 10;

/** Where lines are, to be sent to threads. */
export interface LineIndex {
  readonly path: string;
  /** Of each line that is not blank: where it begins and ends, in bytes, two entries each. */
  readonly spans: Float64Array;
  /** Their numbers in the file, from 1. */
  readonly numbers: Uint32Array;
  /** The text itself, where the file is compressed: there is no place to go to in it. */
  readonly text: Uint8Array | undefined;
}

/**
 * Lines of a text file that are read when they are asked for, in any order: files may be larger than memory. What is held of a file is an
 * index of 20 bytes a line; a gzip file is unpacked into memory.
 */
export class LineFile {
  #file: number | undefined;

  private constructor(readonly index: LineIndex) {}

  /** @throws DatasetError where it can't be read */
  static async open(path: string): Promise<LineFile> {
    try {
      const text = path.endsWith('.gz') ? shared(await promisify(gunzip)(await readFile(path))) : undefined;
      const lines = new Lines();
      if (text) lines.take(text);
      else await scan(path, (bytes) => lines.take(bytes));
      return new LineFile({ path, ...lines.finish(), text });
    } catch (error) {
      throw fileError(path, error);
    }
  }

  /** The same file in another thread. */
  static of(index: LineIndex): LineFile {
    return new LineFile(index);
  }

  /** Lines that are not blank. */
  get length(): number {
    return this.index.numbers.length;
  }

  line(i: number): string {
    const { path, spans, text } = this.index;
    const [begin, end] = [spans[2 * i]!, spans[2 * i + 1]!];
    if (text) return Buffer.from(text.buffer, text.byteOffset + begin, end - begin).toString('utf8');
    this.#file ??= openSync(path, 'r');
    const bytes = Buffer.allocUnsafe(end - begin);
    if (readSync(this.#file, bytes, 0, bytes.length, begin) < bytes.length)
      throw new DatasetError(`${this.where(i)}: the file has been cut since it was opened`);
    return bytes.toString('utf8');
  }

  /** 'train.jsonl:3' */
  where(i: number): string {
    return `${this.index.path}:${this.index.numbers[i]}`;
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}

async function scan(path: string, take: (bytes: Uint8Array) => void): Promise<void> {
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(CHUNK);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, CHUNK);
      if (bytesRead === 0) return;
      take(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}

/** Finds lines in bytes that come piece by piece. */
class Lines {
  readonly #spans: number[] = [];
  readonly #numbers: number[] = [];
  #at = 0;
  #begin = 0;
  #number = 1;
  /** Whether the line so far has anything but blanks. */
  #filled = false;

  take(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; ) {
      const found = bytes.indexOf(NEWLINE, from);
      const end = found < 0 ? bytes.length : found;
      if (!this.#filled) this.#filled = hasText(bytes, from, end);
      if (found < 0) break;
      this.#end(this.#at + found);
      this.#begin = this.#at + found + 1;
      from = found + 1;
    }
    this.#at += bytes.length;
  }

  finish(): Pick<LineIndex, 'spans' | 'numbers'> {
    this.#end(this.#at);
    const spans = new Float64Array(new SharedArrayBuffer(8 * this.#spans.length));
    const numbers = new Uint32Array(new SharedArrayBuffer(4 * this.#numbers.length));
    spans.set(this.#spans);
    numbers.set(this.#numbers);
    return { spans, numbers };
  }

  #end(at: number): void {
    if (this.#filled) {
      this.#spans.push(this.#begin, at);
      this.#numbers.push(this.#number);
    }
    this.#number++;
    this.#filled = false;
  }
}

function hasText(bytes: Uint8Array, from: number, end: number): boolean {
  // Blanks, tabs, returns, and the mark that some editors begin a file with.
  for (let i = from; i < end; i++) if (bytes[i]! > 32 && !(i < 3 && BYTE_ORDER_MARK[i] === bytes[i])) return true;
  return false;
}

const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];

/** In memory that threads share. */
function shared(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}
