import { DeepSpeedError } from '@deepspeed-ts/core';

/** Training data that can't be used: too little of it, samples that don't fit together, a cursor of other data, a sample that could not be read. */
export class DataError extends DeepSpeedError {
  /** The sample that is to blame, where it is one. */
  readonly index: number | undefined;

  constructor(message: string, { index, ...options }: { index?: number | undefined; cause?: unknown } = {}) {
    super('ERR_DATA', message, options);
    this.index = index;
  }
}

/** What a dataset threw for a sample. */
export function sampleError(index: number, cause: unknown): DataError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new DataError(`sample ${index}: ${message}`, { index, cause });
}
