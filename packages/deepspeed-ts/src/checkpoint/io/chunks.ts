/** What the manifest says of a file. */
export interface FileRecord {
  readonly size: number;
  /** Of each {@link CHUNK} of it, so that threads and ranks can hash parts of one file; a small file has one, its own. */
  readonly sha256: readonly string[];
}

/** Bytes of a file that are read, hashed and written as one; a part of the format. */
export const CHUNK = 16 * 2 ** 20;

export function chunkCount(size: number): number {
  return Math.ceil(size / CHUNK);
}
