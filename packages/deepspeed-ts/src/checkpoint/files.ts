import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { safetensorsHeader, type TensorPlan } from '@deepspeed-ts/core';
import { CheckpointError, writeError } from './error.js';

/** What the manifest says of a file. */
export interface FileRecord {
  readonly size: number;
  readonly sha256: string;
}

/** A tensor in host memory that is to be written. */
export interface HostBytes {
  readonly plan: TensorPlan;
  readonly bytes: Uint8Array;
}

/** Bytes that are hashed and written at a time: hashing runs on the JavaScript thread, and training's turn must come in between. */
const CHUNK = 2 ** 20;

/** Writes a new safetensors file to disk, and lets go of each tensor once it is written. */
export async function writeTensors(path: string, tensors: HostBytes[], metadata?: Readonly<Record<string, string>>): Promise<FileRecord> {
  const header = safetensorsHeader(
    tensors.map(({ plan }) => plan),
    metadata,
  );
  return writeNew(path, function* () {
    yield header;
    for (let next = tensors.shift(); next; next = tensors.shift()) yield next.bytes;
  });
}

export async function writeJson(path: string, value: unknown): Promise<FileRecord> {
  const bytes = new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
  return writeNew(path, () => [bytes]);
}

/** Gives a file new contents, all at once. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = join(dirname(path), `.${path.slice(dirname(path).length + 1)}.tmp`);
  await writeNew(temporary, () => [new TextEncoder().encode(text)], 'w');
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

/** @throws CheckpointError naming the file where it is missing, or cut, or longer than written */
export async function verifySize(path: string, { size }: FileRecord): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new CheckpointError('ERR_CHECKPOINT_MISSING', `${path} is missing; the checkpoint lists it. Load another tag`, path);
  if (found.size !== size) throw corrupt(path, `expected ${size} bytes, it has ${found.size}`);
}

/** @throws CheckpointError naming the file where its contents are not what was written */
export async function verifyContents(path: string, { sha256 }: FileRecord): Promise<void> {
  const hash = createHash('sha256');
  const file = await open(path, 'r');
  try {
    const buffer = new Uint8Array(CHUNK);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, CHUNK);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
  const got = hash.digest('hex');
  if (got !== sha256) throw corrupt(path, `its sha-256 is ${got.slice(0, 12)}..., expected ${sha256.slice(0, 12)}...`);
}

export function corrupt(path: string, detail: string): CheckpointError {
  return new CheckpointError('ERR_CHECKPOINT_CORRUPT', `${path} is damaged: ${detail}. Load another tag`, path);
}

async function writeNew(path: string, parts: () => Iterable<Uint8Array>, flags: 'w' | 'wx' = 'wx'): Promise<FileRecord> {
  return guarded(path, async () => {
    const file = await open(path, flags);
    try {
      const hash = createHash('sha256');
      let size = 0;
      for (const part of parts()) {
        for (let at = 0; at < part.byteLength; at += CHUNK) await append(file, hash, part.subarray(at, at + CHUNK));
        size += part.byteLength;
      }
      await file.sync();
      return { size, sha256: hash.digest('hex') };
    } finally {
      await file.close();
    }
  });
}

async function append(file: FileHandle, hash: Hash, bytes: Uint8Array): Promise<void> {
  // The write runs on another thread meanwhile.
  let written = file.write(bytes);
  hash.update(bytes);
  for (let done = 0; ; written = file.write(bytes, done)) {
    done += (await written).bytesWritten;
    if (done === bytes.byteLength) return;
  }
}
