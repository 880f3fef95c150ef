import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CheckpointError, readError, writeError } from './error.js';
import { type FileRecord, recordOf } from './io/chunks.js';

/** Writes a small file to disk. */
export async function writeJson(path: string, value: unknown): Promise<FileRecord> {
  return writeText(path, jsonText(value));
}

/** The same for text. */
export async function writeText(path: string, text: string): Promise<FileRecord> {
  return writeNew(path, new TextEncoder().encode(text));
}

/** Copies a small file to disk. */
export async function copyNew(from: string, path: string): Promise<FileRecord> {
  const bytes = await guardedRead(from, () => readFile(from));
  await guarded(path, () => mkdir(dirname(path), { recursive: true }));
  return writeNew(path, bytes);
}

export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** Gives a file new contents, all at once. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = join(dirname(path), `.${path.slice(dirname(path).length + 1)}.tmp`);
  await writeNew(temporary, new TextEncoder().encode(text), 'w');
  await guarded(path, () => rename(temporary, path));
}

/** Makes what happened to the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  await guarded(path, async () => {
    const directory = await open(path, 'r');
    await directory.sync().finally(() => directory.close());
  });
}

/** Runs a file operation; its failure is told as one to write `path`. */
export async function guarded<T>(path: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw writeError(path, error);
  }
}

/** The same for one that reads. */
export async function guardedRead<T>(path: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw readError(path, error);
  }
}

export function corrupt(path: string, detail: string): CheckpointError {
  return new CheckpointError('ERR_CHECKPOINT_CORRUPT', `${path} is damaged: ${detail}. Load another tag`, path);
}

async function writeNew(path: string, bytes: Uint8Array, flags: 'w' | 'wx' = 'wx'): Promise<FileRecord> {
  return guarded(path, async () => {
    const file = await open(path, flags);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    return recordOf(bytes);
  });
}
