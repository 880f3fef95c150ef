import { openRecords } from '@deepspeed-ts/transformers';
import { moduleUrl } from '../worker-entry.js';
import type { FileDatasetArgs } from './file-dataset-module.js';
import { WorkerDataset } from './workers.js';

export interface FileDatasetOptions extends Omit<FileDatasetArgs, 'path'> {
  /** Threads that read and tokenise. Default 1. */
  readonly threads?: number;
}

/**
 * Records of a file (see `openRecords`) that threads read and tokenise while others are trained on: for files larger than memory. They come
 * in a random order, and a resumed training goes on in it.
 */
export async function fileDataset(path: string, { threads = 1, ...options }: FileDatasetOptions): Promise<WorkerDataset> {
  const records = await openRecords(path);
  const samples = records.length;
  records.close();
  return new WorkerDataset(moduleUrl('data/file-dataset-module'), {
    workers: threads,
    samples,
    args: { ...options, path } satisfies FileDatasetArgs,
  });
}
