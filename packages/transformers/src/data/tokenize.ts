import { type EncodedDocument, type EncodeRecordOptions, encodeRecord, type TextTokenizer } from './encode.js';
import type { Records } from './records.js';
import { chunkOf, documentsOf, type EncodedChunk } from './token-store.js';
import { TokenizeThreads } from './tokenize-threads.js';

/** Records that are encoded at a time. */
const CHUNK = 256;

export interface TokenizeOptions extends EncodeRecordOptions {
  readonly tokenizer: TextTokenizer;
  /** The directory of the tokenizer, where threads may load it too. */
  readonly directory?: string | undefined;
  /** Threads; 0: this one does it. */
  readonly threads: number;
}

/** Encodes records from `from` to `to`. @throws DatasetError naming the record that can't be */
export async function encodeRange(
  records: Records,
  from: number,
  to: number,
  tokenizer: TextTokenizer,
  options: EncodeRecordOptions,
): Promise<EncodedChunk> {
  const documents: EncodedDocument[] = [];
  for (let i = from; i < to; i++) {
    const row = records.get(i);
    documents.push(encodeRecord(row instanceof Promise ? await row : row, records.where(i), tokenizer, options));
  }
  return chunkOf(documents);
}

/** The documents of all records, in their order, encoded by threads where that is wanted and records are those of a file. */
export async function* tokenize(records: Records, options: TokenizeOptions): AsyncGenerator<EncodedDocument> {
  const { tokenizer, directory, completionOnly = true } = options;
  const ranges = Math.ceil(records.length / CHUNK);
  const end = (range: number) => Math.min(records.length, (range + 1) * CHUNK);
  // Starting a thread takes as long as some hundred records.
  const wanted = Math.min(options.threads, Math.floor(ranges / 4));
  if (wanted < 1 || directory === undefined || records.path === undefined) {
    for (let range = 0; range < ranges; range++)
      yield* documentsOf(await encodeRange(records, range * CHUNK, end(range), tokenizer, { completionOnly }));
    return;
  }
  const threads = new TokenizeThreads(wanted, { path: records.path, lines: records.lines, directory, completionOnly });
  try {
    const ahead: Promise<EncodedChunk>[] = [];
    let next = 0;
    const fill = () => {
      while (next < ranges && ahead.length < 2 * wanted) {
        const chunk = threads.encode(next * CHUNK, end(next));
        // Told in its turn.
        chunk.catch(() => {});
        ahead.push(chunk);
        next++;
      }
    };
    for (fill(); ahead.length > 0; fill()) yield* documentsOf(await ahead.shift()!);
  } finally {
    await threads.close();
  }
}
