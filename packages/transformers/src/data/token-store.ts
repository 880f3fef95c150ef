import type { EncodedDocument } from './encode.js';

/** Documents one after another in a few arrays, as threads send them. */
export interface EncodedChunk {
  /** Tokens of all documents. */
  readonly ids: Int32Array;
  /** 1 for tokens that are to be learned; empty where all of them are. */
  readonly learned: Uint8Array;
  /** Tokens of each document. */
  readonly lengths: Uint32Array;
  /** 1 for documents that may be cut into several. */
  readonly divisible: Uint8Array;
}

export function chunkOf(documents: readonly EncodedDocument[]): EncodedChunk {
  const lengths = Uint32Array.from(documents, ({ ids }) => ids.length);
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const ids = new Int32Array(total);
  const learned = new Uint8Array(documents.some((document) => document.learned) ? total : 0);
  let at = 0;
  for (const document of documents) {
    ids.set(document.ids, at);
    if (learned.length > 0) learned.set(document.learned ?? new Uint8Array(document.ids.length).fill(1), at);
    at += document.ids.length;
  }
  return { ids, learned, lengths, divisible: Uint8Array.from(documents, ({ divisible }) => Number(divisible)) };
}

/** The documents of a chunk, as views of it. */
export function* documentsOf({ ids, learned, lengths, divisible }: EncodedChunk): Generator<EncodedDocument> {
  let at = 0;
  for (const [i, length] of lengths.entries()) {
    const own = learned.length > 0 ? learned.subarray(at, at + length) : undefined;
    yield { ids: ids.subarray(at, at + length), learned: own, divisible: divisible[i] === 1 };
    at += length;
  }
}
