import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Files that a run trains on. */
export interface Files {
  /** The book, a record for each paragraph. */
  readonly book: string;
  /** Prompts and completions to learn from, and others to be judged by. */
  readonly train: string;
  readonly test: string;
}

/** What the model is to learn: to say a word of the book loudly. */
export function lesson(word: string): { prompt: string; completion: string } {
  return { prompt: `Shout: ${word}\n`, completion: `${word.toUpperCase()}!` };
}

/** Makes JSON lines of a book: its paragraphs, and a lesson for each of its words of 3 to 7 letters; every tenth word is for the test. */
export function writeData(book: string, folder: string): Files {
  const text = readFileSync(book, 'utf8').replaceAll('\r', '');
  const paragraphs = text.split(/\n{2,}/).map((paragraph) => ({ text: paragraph.replaceAll('\n', ' ') }));
  const words = [...new Set(text.toLowerCase().match(/\b[a-z]{3,7}\b/g))].sort();
  const lessons = words.map(lesson);
  return {
    book: write(join(folder, 'book.jsonl'), paragraphs),
    train: write(
      join(folder, 'train.jsonl'),
      lessons.filter((_, i) => i % 10 !== 0),
    ),
    test: write(
      join(folder, 'test.jsonl'),
      lessons.filter((_, i) => i % 10 === 0),
    ),
  };
}

function write(path: string, records: readonly object[]): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${records.map((record) => JSON.stringify(record)).join('\n')}\n`);
  return path;
}
