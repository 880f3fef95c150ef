import { DeepSpeedError } from '@deepspeed-ts/core';

/** Data that can't be trained on: a file that is none, a line that is no JSON, a record without text, nothing left to learn from. */
export class DatasetError extends DeepSpeedError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('ERR_DATASET', message, options);
  }
}

/** Why a file could not be read, in words. */
export function fileError(path: string, error: unknown): DatasetError {
  const { code, message } = error as NodeJS.ErrnoException;
  const reason = code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'it is a directory' : message;
  return new DatasetError(`${path}: ${reason}; expected a file of training data`, { cause: error });
}
