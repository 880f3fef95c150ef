import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { Checksum } from './chunks.js';

/** Consecutive pieces that are written to a file from `offset` on, a multiple of {@link ALIGNMENT}. */
export interface WriteJob {
  readonly kind: 'write';
  readonly path: string;
  readonly offset: number;
  readonly pieces: readonly Uint8Array[];
  /** Past the page cache, where the file system can: the end of the file may be padded to {@link ALIGNMENT}, for the caller to cut. */
  readonly direct: boolean;
}

/** Bytes of a file whose checksum is asked for. */
export interface CheckJob {
  readonly kind: 'check';
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

export type Job = WriteJob | CheckJob;

/** Direct writes are of whole blocks from memory that begins at one; larger than any disk's. */
export const ALIGNMENT = 4096;

/** Bytes that are copied, checked and written at a time: few enough to be found in the cache again. */
const BLOCK = 4 * 2 ** 20;

const WASM_PAGE = 65536;

/** The types of Node do not have it, those of browsers do. */
const { WebAssembly } = globalThis as unknown as {
  WebAssembly: { Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer } };
};

let aligned: Uint8Array | undefined;

/** Does the job on the calling thread, and gives the checksum of what was written or found. @throws the system's error */
export function perform(job: Job): string {
  return job.kind === 'write' ? write(job) : checksumOf(job);
}

function write({ path, offset, pieces, direct }: WriteJob): string {
  const checksum = new Checksum();
  const file = new BlockFile(path, direct);
  try {
    const stage = stagingBlock();
    let used = 0;
    let at = offset;
    const flush = () => {
      checksum.update(stage.subarray(0, used));
      file.write(stage, used, at);
      at += used;
      used = 0;
    };
    for (const piece of pieces) {
      for (let done = 0; done < piece.length; ) {
        const part = piece.subarray(done, done + BLOCK - used);
        stage.set(part, used);
        done += part.length;
        used += part.length;
        if (used === BLOCK) flush();
      }
    }
    if (used > 0) flush();
  } finally {
    file.close();
  }
  return checksum.digest();
}

/** A file that is written past the page cache, until it turns out that its file system can't do that. */
class BlockFile {
  #file: number;
  #direct: boolean;

  constructor(
    readonly path: string,
    direct: boolean,
  ) {
    const opened = direct && constants.O_DIRECT ? tryDirect(path) : undefined;
    this.#direct = opened !== undefined;
    this.#file = opened ?? openSync(path, constants.O_WRONLY);
  }

  /** The first `count` bytes of a staging block, and zeros up to a whole number of disk blocks. */
  write(stage: Uint8Array, count: number, position: number): void {
    let end = count;
    if (this.#direct) {
      end = Math.ceil(count / ALIGNMENT) * ALIGNMENT;
      stage.fill(0, count, end);
    }
    for (let done = 0; done < end; ) {
      try {
        done += writeSync(this.#file, stage, done, end - done, position + done);
      } catch (error) {
        if (!this.#direct || (error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
        this.close();
        this.#file = openSync(this.path, constants.O_WRONLY);
        this.#direct = false;
      }
    }
  }

  close(): void {
    closeSync(this.#file);
  }
}

function tryDirect(path: string): number | undefined {
  try {
    return openSync(path, constants.O_WRONLY | constants.O_DIRECT);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw error;
  }
}

function checksumOf({ path, offset, length }: CheckJob): string {
  const checksum = new Checksum();
  const file = openSync(path, 'r');
  try {
    const stage = stagingBlock();
    for (let done = 0; done < length; ) {
      const count = readSync(file, stage, 0, Math.min(BLOCK, length - done), offset + done);
      // Shorter than it should be: then the checksum differs.
      if (count === 0) break;
      checksum.update(stage.subarray(0, count));
      done += count;
    }
  } finally {
    closeSync(file);
  }
  return checksum.digest();
}

/** Memory of WebAssembly begins at a page, which is what direct writes need and what no other buffer of JavaScript promises. One per thread. */
function stagingBlock(): Uint8Array {
  aligned ??= new Uint8Array(new WebAssembly.Memory({ initial: BLOCK / WASM_PAGE }).buffer);
  return aligned;
}
