import zlib from 'node:zlib';
import type { Compressors, FileMetaData } from 'hyparquet';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { DatasetError, fileError } from './errors.js';
import type { Records, Row } from './records.js';

/** What a column of the Hub is compressed with and hyparquet leaves to others; snappy it knows itself. */
const COMPRESSORS: Compressors = {
  GZIP: (bytes) => zlib.gunzipSync(bytes),
  BROTLI: (bytes) => zlib.brotliDecompressSync(bytes),
  ZSTD: (bytes) => {
    // Node has it from 22.15 on.
    const { zstdDecompressSync } = zlib as { zstdDecompressSync?: (bytes: Uint8Array) => Uint8Array };
    if (!zstdDecompressSync)
      throw new DatasetError('its columns are compressed by zstd, which Node knows from 22.15 on; write it with snappy');
    return zstdDecompressSync(bytes);
  },
};

/** Groups of rows that are kept decoded: the one that is read, and the one before. */
const KEPT = 2;

/** Rows of a Parquet file, decoded a group of rows at a time. */
export async function parquetRecords(path: string): Promise<Records> {
  let file: Awaited<ReturnType<typeof asyncBufferFromFile>>;
  let metadata: FileMetaData;
  try {
    file = await asyncBufferFromFile(path);
    metadata = await parquetMetadataAsync(file);
  } catch (error) {
    throw fileError(path, error);
  }
  const starts = [0];
  for (const { num_rows } of metadata.row_groups) starts.push(starts.at(-1)! + Number(num_rows));
  const groups = new Map<number, Promise<Row[]>>();
  const read = (group: number): Promise<Row[]> => {
    let rows = groups.get(group);
    if (!rows) {
      if (groups.size >= KEPT) groups.delete(groups.keys().next().value!);
      const [rowStart, rowEnd] = [starts[group]!, starts[group + 1]!];
      rows = parquetReadObjects({ file, metadata, rowStart, rowEnd, compressors: COMPRESSORS }).catch((error: unknown) => {
        throw fileError(path, error);
      });
      groups.set(group, rows);
    }
    return rows;
  };
  return {
    length: starts.at(-1)!,
    path,
    where: (i) => `${path}, row ${i + 1}`,
    async get(i) {
      const group = starts.findIndex((start, g) => i >= start && i < starts[g + 1]!);
      return (await read(group))[i - starts[group]!]!;
    },
    close() {},
  };
}
