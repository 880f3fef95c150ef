import { readFile } from 'node:fs/promises';
import { DatasetError, fileError } from './errors.js';
import { LineFile, type LineIndex } from './line-file.js';
import { parquetRecords } from './parquet.js';

/** Columns of a record by name. */
export type Row = Readonly<Record<string, unknown>>;

/** Records that can be read in any order. */
export interface Records {
  readonly length: number;
  get(index: number): Row | Promise<Row>;
  /** Where a record stands, for messages. */
  where(index: number): string;
  /** The file, for threads that open it themselves. */
  readonly path?: string;
  /** The index of its lines, where it has lines. */
  readonly lines?: LineIndex;
  close(): void;
}

/**
 * Opens training data by its ending: `.jsonl`, `.ndjson` and `.json` with a record in each line (or one list), `.parquet`, and `.txt` with a
 * record `{ text }` in each line; all but Parquet also as `.gz`.
 *
 * @param lines - The index of its lines, where another thread has made it.
 * @throws DatasetError for another ending, and for a file that can't be read
 */
export async function openRecords(path: string, lines?: LineIndex): Promise<Records> {
  const kind = /\.([a-z]+)(\.gz)?$/i.exec(path)?.[1]?.toLowerCase();
  switch (kind) {
    case 'parquet':
      return parquetRecords(path);
    case 'json':
      return (await jsonList(path)) ?? jsonLines(lines ? LineFile.of(lines) : await LineFile.open(path));
    case 'jsonl':
    case 'ndjson':
      return jsonLines(lines ? LineFile.of(lines) : await LineFile.open(path));
    case 'txt':
      return textLines(lines ? LineFile.of(lines) : await LineFile.open(path));
    default:
      throw new DatasetError(`${path}: expected a file that ends in .jsonl, .json, .parquet or .txt (or .jsonl.gz, .json.gz, .txt.gz)`);
  }
}

/** Records that are there already. */
export function recordsOf(rows: readonly Row[]): Records {
  return { length: rows.length, get: (i) => rows[i]!, where: (i) => `record ${i}`, close() {} };
}

function jsonLines(file: LineFile): Records {
  return { ...ofLines(file), get: (i) => parse(file.line(i), file.where(i)) };
}

function textLines(file: LineFile): Records {
  return { ...ofLines(file), get: (i) => ({ text: file.line(i).replace(/\r$/, '') }) };
}

function ofLines(file: LineFile): Omit<Records, 'get'> {
  return { length: file.length, path: file.index.path, lines: file.index, where: (i) => file.where(i), close: () => file.close() };
}

function parse(line: string, where: string): Row {
  let value: unknown;
  try {
    value = JSON.parse(line.replace(/^\uFEFF/, ''));
  } catch (error) {
    const shown = line.length > 60 ? `${line.slice(0, 57)}...` : line;
    throw new DatasetError(`${where}: expected a line of JSON, got ${shown} (${(error as Error).message})`, { cause: error });
  }
  if (isRow(value)) return value;
  throw new DatasetError(
    `${where}: expected a JSON object such as {"text": "..."}, got ${Array.isArray(value) ? 'a list' : JSON.stringify(value)}`,
  );
}

/** A file that is one list of records; `undefined` for one that has a record in each line. */
async function jsonList(path: string): Promise<Records | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw fileError(path, error);
  }
  if (!/^\uFEFF?\s*\[/.test(text)) return undefined;
  let rows: unknown;
  try {
    rows = JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    throw new DatasetError(`${path}: it begins as a list of records but is no JSON: ${(error as Error).message}`, { cause: error });
  }
  const wrong = (rows as unknown[]).findIndex((row) => !isRow(row));
  if (wrong >= 0) throw new DatasetError(`${path}, record ${wrong}: expected a JSON object such as {"text": "..."}`);
  return { ...recordsOf(rows as Row[]), where: (i) => `${path}, record ${i}`, path };
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
