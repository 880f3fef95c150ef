import { crc32 } from 'node:zlib';

/** What the manifest says of a file. */
export interface FileRecord {
  readonly size: number;
  /** Of each {@link CHUNK} of it, in 8 hexadecimal digits, so that threads and ranks can check parts of one file; a small file has one, its own. */
  readonly crc32: readonly string[];
}

/** Bytes of a file that are read, checked and written as one; a part of the format. */
export const CHUNK = 16 * 2 ** 20;

export function chunkCount(size: number): number {
  return Math.ceil(size / CHUNK);
}

/** The CRC-32 of bytes that are shown to it one part after the other. */
export class Checksum {
  #crc = 0;

  update(bytes: Uint8Array): void {
    this.#crc = crc32(bytes, this.#crc);
  }

  digest(): string {
    return this.#crc.toString(16).padStart(8, '0');
  }
}

export function recordOf(bytes: Uint8Array): FileRecord {
  const chunks = Array.from({ length: chunkCount(bytes.length) }, (_, i) => bytes.subarray(i * CHUNK, (i + 1) * CHUNK));
  const digests = chunks.map((chunk) => {
    const checksum = new Checksum();
    checksum.update(chunk);
    return checksum.digest();
  });
  return { size: bytes.length, crc32: digests };
}
