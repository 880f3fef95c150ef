import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { exists } from './cached-repo.js';
import { HubError } from './errors.js';
import { withLock } from './lock.js';

export interface Download {
  readonly repo: string;
  readonly file: string;
  /** Where it goes. */
  readonly path: string;
  readonly size: number;
  /** The bytes from `start` on. */
  stream(start: number): Promise<AsyncIterable<Uint8Array>>;
  onProgress(loaded: number): void;
}

/** Tries in a row that bring nothing, and how long to wait before the second. */
const TRIES = 4;
const PAUSE_MS = 250;

/**
 * Downloads a file. It has another name until it is whole, under which an interrupted download is gone on with: at once, or by the next process
 * that wants it. Processes that want the same file at the same time download it once.
 *
 * @throws HubError where it can't be had as announced; the cache is as it was then
 */
export async function download(wanted: Download): Promise<void> {
  await mkdir(dirname(wanted.path), { recursive: true });
  while (!(await exists(wanted.path))) await withLock(`${wanted.path}.lock`, () => fetchWhole(wanted));
}

async function fetchWhole({ repo, file, path, size, stream, onProgress }: Download): Promise<void> {
  if (await exists(path)) return;
  const incomplete = `${path}.incomplete`;
  let have = (await stat(incomplete).catch(() => undefined))?.size ?? 0;
  for (let failures = 0; have !== size || !(await exists(incomplete)); ) {
    // More than there should be is of no use, whatever it is.
    if (have > size) have = await restart(incomplete);
    const before = have;
    try {
      have = await append(incomplete, await stream(have), have, onProgress);
      if (have >= size) break;
      throw new Error(`the connection ended after ${have} of ${size} bytes`);
    } catch (cause) {
      if (cause instanceof HubError) throw cause;
      have = (await stat(incomplete).catch(() => undefined))?.size ?? 0;
      failures = have > before ? 1 : failures + 1;
      if (failures >= TRIES) {
        const text = `${file} could not be downloaded: ${messageOf(cause)}. What has come, ${have} of ${size} bytes, is kept: try again to go on from there`;
        throw new HubError('ERR_HUB_DOWNLOAD', repo, text, { cause });
      }
      await sleep(PAUSE_MS * 2 ** failures);
    }
  }
  if (have !== size) {
    await rm(incomplete, { force: true });
    throw new HubError('ERR_HUB_DOWNLOAD', repo, `${file}: expected ${size} bytes, got ${have}; it was thrown away, try again`);
  }
  await rename(incomplete, path);
}

/** Adds what comes to a file of `have` bytes, and gives how many it has then. */
async function append(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  have: number,
  onProgress: (loaded: number) => void,
): Promise<number> {
  const file = await open(path, 'a');
  try {
    let size = have;
    for await (const chunk of chunks) {
      await file.writeFile(chunk);
      size += chunk.length;
      onProgress(size);
    }
    // The name that says it is whole must not survive a crash that the contents do not.
    await file.sync();
    return size;
  } finally {
    await file.close();
  }
}

async function restart(path: string): Promise<number> {
  await rm(path, { force: true });
  return 0;
}

/** What went wrong, of errors that libraries throw as text too, or hide in a cause. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.message === 'fetch failed' ? error.cause.message || String(error.cause) : error.message;
}
