import { DeepSpeedError } from '@deepspeed-ts/core';

/** A checkpoint of DeepSpeed's that can't be read. Nothing was written. */
export class DeepSpeedCheckpointError extends DeepSpeedError {
  constructor(
    /** The file or directory that is to blame. */
    readonly path: string,
    detail: string,
    options?: { cause?: unknown },
  ) {
    super('ERR_DEEPSPEED_CHECKPOINT', `${path}: ${detail}`, options);
  }
}
