import type { AsyncDataset, Dataset } from '@deepspeed-ts/core';
import { AutoTokenizer } from '../tokenizer/auto-tokenizer.js';
import type { TokenSample } from './collate.js';
import { type EncodedDocument, type EncodeRecordOptions, encodeRecord, type TextTokenizer } from './encode.js';
import { DatasetError } from './errors.js';
import { type DatasetReport, emptyReport, limited } from './limit.js';
import { type PackingPlan, packDocuments } from './pack.js';
import { openRecords, type Records, type Row, recordsOf } from './records.js';
import { rowOf } from './rows.js';
import { chunkOf, type EncodedChunk } from './token-store.js';
import { tokenize } from './tokenize.js';

export interface LoadDatasetOptions extends EncodeRecordOptions {
  /** A tokenizer, or the directory of one, which threads can load too. */
  readonly tokenizer: TextTokenizer | string;
  /** Tokens of a row at most. */
  readonly maxLength: number;
  /** Put several documents into a row, none of which sees another. Default false: a document is a row. */
  readonly pack?: boolean;
  /** Threads that tokenise; needs a file and the directory of the tokenizer. Default 0: this thread does. */
  readonly threads?: number;
}

/** Rows of tokens, and what became of the records that they were made of. */
export interface TokenDataset extends Dataset<TokenSample> {
  readonly report: DatasetReport;
}

/**
 * Reads training data and makes tokens of it, once: training then only copies. Held in memory are 4 bytes a token, 5 where only answers are
 * learned. The rows are the same whatever the number of threads.
 *
 * @param source - A file (see `openRecords`), or records.
 * @throws DatasetError for a file or record that can't be used, and where nothing is left to learn from
 */
export async function loadDataset(source: string | readonly Row[], options: LoadDatasetOptions): Promise<TokenDataset> {
  const { tokenizer: given, maxLength, pack = false, completionOnly = true, threads = 0 } = options;
  const directory = typeof given === 'string' ? given : undefined;
  const tokenizer = typeof given === 'string' ? await AutoTokenizer.fromPretrained(given) : given;
  const records = await opened(source, maxLength);
  const report = emptyReport();
  try {
    const store = new Documents();
    for await (const document of tokenize(records, { tokenizer, directory, completionOnly, threads })) {
      for (const piece of limited(document, maxLength, pack, report)) store.add(piece);
    }
    if (store.length === 0) throw nothingLeft(records, report, maxLength);
    const plan = pack ? packDocuments(store.lengths, maxLength) : undefined;
    return { report, length: plan?.length ?? store.length, get: (row) => rowOf(documentsIn(plan, row).map((i) => store.get(i))) };
  } finally {
    records.close();
  }
}

/**
 * The same records without holding their tokens: a row is tokenised when it is asked for. For files larger than memory, in a thread of a
 * `WorkerDataset`. Records with nothing to learn are not left out but are rows without labels, for nobody has looked at them.
 */
export async function openDataset(
  source: string | readonly Row[],
  options: Omit<LoadDatasetOptions, 'pack' | 'threads'>,
): Promise<AsyncDataset<TokenSample>> {
  const { tokenizer: given, maxLength, completionOnly = true } = options;
  const tokenizer = typeof given === 'string' ? await AutoTokenizer.fromPretrained(given) : given;
  const records = await opened(source, maxLength);
  const encode = (row: Row, i: number) => {
    const { ids, learned, divisible } = encodeRecord(row, records.where(i), tokenizer, { completionOnly });
    return rowOf([{ ids: ids.subarray(0, maxLength), learned: learned?.subarray(0, maxLength), divisible }]);
  };
  return {
    length: records.length,
    get(i) {
      const row = records.get(i);
      return row instanceof Promise ? row.then((there) => encode(there, i)) : encode(row, i);
    },
  };
}

async function opened(source: string | readonly Row[], maxLength: number): Promise<Records> {
  if (!Number.isInteger(maxLength) || maxLength < 2)
    throw new DatasetError(`maxLength: expected an integer of at least 2 tokens, got ${maxLength}`);
  const records = typeof source === 'string' ? await openRecords(source) : recordsOf(source);
  if (records.length > 0) return records;
  records.close();
  throw new DatasetError(`${records.path ?? 'the data'} is empty: expected at least one record`);
}

function documentsIn(plan: PackingPlan | undefined, row: number): readonly number[] {
  return plan ? plan[row]! : [row];
}

function nothingLeft({ path = 'the data' }: Records, { records, truncated }: DatasetReport, maxLength: number): DatasetError {
  const why =
    truncated > 0
      ? `; ${truncated} of them have more than maxLength, ${maxLength} tokens, of which what is learned comes after: raise maxLength`
      : '';
  return new DatasetError(`${path}: none of its ${records} records has a token to learn within ${maxLength} tokens${why}`);
}

/** Documents in chunks of a few megabytes. */
class Documents {
  readonly #chunks: EncodedChunk[] = [];
  /** By document: its chunk, and where it begins there. */
  readonly #chunkOf: number[] = [];
  readonly #startOf: number[] = [];
  readonly lengths: number[] = [];
  #waiting: EncodedDocument[] = [];
  #waitingTokens = 0;

  get length(): number {
    return this.lengths.length;
  }

  add(document: EncodedDocument): void {
    this.#chunkOf.push(this.#chunks.length);
    this.#startOf.push(this.#waitingTokens);
    this.lengths.push(document.ids.length);
    this.#waiting.push(document);
    this.#waitingTokens += document.ids.length;
    if (this.#waitingTokens >= 2 ** 20) this.#flush();
  }

  get(i: number): EncodedDocument {
    if (this.#waiting.length > 0) this.#flush();
    const { ids, learned } = this.#chunks[this.#chunkOf[i]!]!;
    const [begin, end] = [this.#startOf[i]!, this.#startOf[i]! + this.lengths[i]!];
    return { ids: ids.subarray(begin, end), learned: learned.length > 0 ? learned.subarray(begin, end) : undefined, divisible: false };
  }

  #flush(): void {
    this.#chunks.push(chunkOf(this.#waiting));
    this.#waiting = [];
    this.#waitingTokens = 0;
  }
}
