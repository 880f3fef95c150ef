import { openDataset, padCollator } from '@deepspeed-ts/transformers';

// What a thread of `fileDataset` imports.

export interface FileDatasetArgs {
  readonly path: string;
  /** The directory of a tokenizer. */
  readonly tokenizer: string;
  /** Tokens of a row at most. */
  readonly maxLength: number;
  /** Learn answers only. Default true. */
  readonly completionOnly?: boolean;
}

export default ({ path, ...options }: FileDatasetArgs) => openDataset(path, options);

export const collate = padCollator({ padToMultipleOf: 1 });
