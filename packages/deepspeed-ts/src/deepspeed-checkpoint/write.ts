import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { bytesOf, numelOf, packShards, SHARD_BYTES, safetensorsHeader, shardName, type TensorPlan } from '@deepspeed-ts/core';
import { guarded } from '../checkpoint/files.js';
import { CHUNK, Checksum, type FileRecord } from '../checkpoint/io/chunks.js';

/** A tensor that is to be written, and where its bytes come from, a block at a time. */
export interface StreamedTensor {
  readonly plan: TensorPlan;
  read(): Iterable<Uint8Array>;
}

export interface Shards {
  /** By name. */
  readonly records: Record<string, FileRecord>;
  /** The file of every tensor. */
  readonly fileOf: Record<string, string>;
  readonly bytes: number;
}

/** Writes tensors into files of at most so many bytes, none of which is ever held. `onBytes` is told of bytes as they are written. */
export async function writeShards(
  directory: string,
  kind: 'model' | 'optimizer',
  tensors: readonly StreamedTensor[],
  onBytes: (count: number) => void,
  limit = SHARD_BYTES,
): Promise<Shards> {
  const shards = packShards(tensors, sizeOf, limit);
  const records: Record<string, FileRecord> = {};
  const fileOf: Record<string, string> = {};
  for (const [index, shard] of shards.entries()) {
    const name = shardName(kind, index, shards.length);
    records[name] = await writeStreamed(join(directory, name), shard, onBytes);
    for (const { plan } of shard) fileOf[plan.name] = name;
  }
  return { records, fileOf, bytes: tensors.reduce((sum, tensor) => sum + sizeOf(tensor), 0) };
}

export async function writeStreamed(
  path: string,
  tensors: readonly StreamedTensor[],
  onBytes: (count: number) => void,
): Promise<FileRecord> {
  return guarded(path, async () => {
    const file = await open(path, 'wx');
    try {
      const sink = new CheckedFile(file);
      await sink.write(safetensorsHeader(tensors.map(({ plan }) => plan)));
      for (const { plan, read } of tensors) {
        const before = sink.size;
        for (const block of read()) {
          await sink.write(block);
          onBytes(block.length);
        }
        const expected = numelOf(plan.shape) * bytesOf(plan.dtype);
        if (sink.size - before !== expected) throw new Error(`${plan.name} has ${sink.size - before} bytes, expected ${expected}`);
      }
      await file.sync();
      return sink.end();
    } finally {
      await file.close();
    }
  });
}

function sizeOf({ plan }: StreamedTensor): number {
  return numelOf(plan.shape) * bytesOf(plan.dtype);
}

/** A file that is written from front to back, with the checksums that manifests want. */
class CheckedFile {
  size = 0;
  readonly #digests: string[] = [];
  #checksum = new Checksum();
  #left = CHUNK;

  constructor(private readonly file: FileHandle) {}

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + this.#left);
      this.#checksum.update(part);
      at += part.length;
      this.#left -= part.length;
      if (this.#left === 0) this.#next();
    }
    for (let done = 0; done < bytes.length; ) done += (await this.file.write(bytes, done)).bytesWritten;
    this.size += bytes.length;
  }

  end(): FileRecord {
    if (this.#left < CHUNK) this.#next();
    return { size: this.size, crc32: this.#digests };
  }

  #next(): void {
    this.#digests.push(this.#checksum.digest());
    this.#checksum = new Checksum();
    this.#left = CHUNK;
  }
}
