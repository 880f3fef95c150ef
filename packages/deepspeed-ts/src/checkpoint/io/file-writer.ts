import { type FileHandle, open } from 'node:fs/promises';
import { bytesOf, numelOf, safetensorsHeader, type TensorPlan } from '@deepspeed-ts/core';
import { guarded } from '../files.js';
import { CHUNK, chunkCount, type FileRecord } from './chunks.js';
import { type RunJob, worthDirect } from './threads.js';

/** Bytes of a tensor that lie in one chunk of its file. */
export interface Piece {
  readonly tensor: number;
  /** From the beginning of the tensor. */
  readonly from: number;
  readonly count: number;
}

interface Chunk {
  missing: number;
  readonly pieces: { at: number; bytes: Uint8Array }[];
}

/**
 * Writes a new safetensors file from pieces that come in any order. Once all of them are there and it is told to begin, chunks are handed to
 * threads, which compute checksums and write them, and their memory is given back one after the other.
 */
export class FileWriter {
  readonly size: number;
  /** All that is to be put, by tensor. */
  readonly pieces: readonly (readonly Piece[])[];
  /** Where each tensor begins in the file. */
  readonly #begins: readonly number[];
  readonly #chunks: Chunk[];
  readonly #file: Promise<FileHandle>;

  constructor(
    readonly path: string,
    plans: readonly TensorPlan[],
    private readonly run: RunJob,
  ) {
    const header = safetensorsHeader(plans);
    const { begins, end } = layOut(plans, header.length);
    this.#begins = begins;
    this.size = end;
    this.pieces = plans.map((_, tensor) => cut(tensor, begins[tensor]!, begins[tensor + 1] ?? end));
    this.#chunks = Array.from({ length: chunkCount(end) }, (_, i) => ({ missing: Math.min(CHUNK, end - i * CHUNK), pieces: [] }));
    this.#file = guarded(path, () => create(path, end));
    // Told by finish().
    this.#file.catch(() => {});
    for (let at = 0; at < header.length; at += CHUNK) this.#add(at, header.slice(at, at + CHUNK));
  }

  /** Gives it the bytes of a piece, which are its own from now on. */
  put({ tensor, from }: Piece, bytes: Uint8Array): void {
    this.#add(this.#begins[tensor]! + from, bytes);
  }

  /** Writes what was put, and waits until the file is whole and on disk. @throws CheckpointError naming the file */
  async finish(): Promise<FileRecord> {
    return guarded(this.path, async () => {
      const file = await this.#file;
      try {
        if (this.#chunks.some(({ missing }) => missing > 0)) throw new Error('not all of it was given');
        const crc32 = await Promise.all(this.#chunks.splice(0).map((chunk, i) => this.#write(chunk, i)));
        // Direct writes have padded the end.
        await file.truncate(this.size);
        await file.sync();
        return { size: this.size, crc32 };
      } finally {
        await file.close();
      }
    });
  }

  #add(at: number, bytes: Uint8Array): void {
    const chunk = this.#chunks[Math.floor(at / CHUNK)]!;
    chunk.pieces.push({ at, bytes });
    chunk.missing -= bytes.length;
  }

  #write({ pieces }: Chunk, index: number): Promise<string> {
    const inOrder = pieces.sort((a, b) => a.at - b.at).map(({ bytes }) => bytes);
    return this.run({ kind: 'write', path: this.path, offset: index * CHUNK, pieces: inOrder, direct: worthDirect(this.size) });
  }
}

/** As long as it will be from the start: writing inside a file is what threads can do side by side. */
async function create(path: string, size: number): Promise<FileHandle> {
  const file = await open(path, 'wx');
  try {
    await file.truncate(size);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

function layOut(plans: readonly TensorPlan[], start: number): { begins: number[]; end: number } {
  let end = start;
  const begins = plans.map(({ shape, dtype }) => {
    const begin = end;
    end += numelOf(shape) * bytesOf(dtype);
    return begin;
  });
  return { begins, end };
}

function cut(tensor: number, begin: number, end: number): Piece[] {
  const pieces: Piece[] = [];
  for (let at = begin; at < end; ) {
    const next = Math.min(end, (Math.floor(at / CHUNK) + 1) * CHUNK);
    pieces.push({ tensor, from: at - begin, count: next - at });
    at = next;
  }
  return pieces;
}
