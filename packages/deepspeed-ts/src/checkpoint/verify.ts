import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Communicator } from '@deepspeed-ts/core';
import { CheckpointError } from './error.js';
import { corrupt, guardedRead } from './files.js';
import { CHUNK, type FileRecord } from './io/chunks.js';
import type { FileThreads, RunJob } from './io/threads.js';

/** A chunk of a file, and what its checksum should be. */
interface Check {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  readonly crc32: string;
}

/**
 * Makes sure that files are what was written. It is done on threads, and ranks share it: together they
 * look at every byte once.
 *
 * @throws CheckpointError naming the file that is missing, cut, longer, or has other contents
 */
export async function verify(
  { rank, size }: Communicator,
  directory: string,
  files: readonly [name: string, record: FileRecord][],
  threads: FileThreads,
): Promise<void> {
  for (const [name, record] of files) await verifySize(join(directory, name), record);
  const checks = files.flatMap(([name, record]) => checksOf(join(directory, name), record));
  const share = (r: number) => Math.floor((r * checks.length) / size);
  const mine = checks.slice(share(rank), share(rank + 1));
  const run = threads.runnerFor(mine.reduce((sum, { length }) => sum + length, 0));
  // All are waited for: no file is open any more when one of them was bad.
  for (const result of await Promise.allSettled(mine.map((check) => verifyChunk(check, run)))) {
    if (result.status === 'rejected') throw result.reason;
  }
}

function checksOf(path: string, { size, crc32 }: FileRecord): Check[] {
  return crc32.map((digest, i) => ({ path, offset: i * CHUNK, length: Math.min(CHUNK, size - i * CHUNK), crc32: digest }));
}

async function verifySize(path: string, { size }: FileRecord): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new CheckpointError('ERR_CHECKPOINT_MISSING', `${path} is missing; the checkpoint lists it. Load another tag`, path);
  if (found.size !== size) throw corrupt(path, `expected ${size} bytes, it has ${found.size}`);
}

async function verifyChunk({ path, offset, length, crc32 }: Check, run: RunJob): Promise<void> {
  const got = await guardedRead(path, () => run({ kind: 'check', path, offset, length }));
  if (got === crc32) return;
  const where = `bytes ${offset} to ${offset + length}`;
  throw corrupt(path, `the CRC-32 of ${where} is ${got}, expected ${crc32}`);
}
