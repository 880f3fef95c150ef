import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { ByteSource } from '../pickle/cursor.js';
import { TorchFileError } from './error.js';

/** A file that is read by ranges. */
export class FileSource implements ByteSource {
  readonly size: number;
  readonly #file: number;

  constructor(readonly path: string) {
    this.#file = openSync(path, 'r');
    const { size } = fstatSync(this.#file);
    this.size = size;
  }

  read(position: number, length: number): Uint8Array {
    if (position < 0 || position + length > this.size) {
      throw new TorchFileError(
        this.path,
        `bytes ${position} to ${position + length} are expected, the file has ${this.size}: it is truncated`,
      );
    }
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const count = readSync(this.#file, bytes, done, length - done, position + done);
      if (count === 0) throw new TorchFileError(this.path, `it ends at byte ${position + done}: it has been cut since it was opened`);
      done += count;
    }
    return bytes;
  }

  close(): void {
    closeSync(this.#file);
  }
}
