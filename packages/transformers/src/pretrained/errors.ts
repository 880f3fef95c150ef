import { DeepSpeedError } from '@deepspeed-ts/core';

export type PretrainedErrorCode =
  /** No such directory, or a file missing in it. */
  | 'ERR_PRETRAINED_MISSING'
  /** A file that is not what it should be. */
  | 'ERR_PRETRAINED_FILE'
  /** Weights that do not fit the model. */
  | 'ERR_PRETRAINED_MISMATCH';

/** A Hugging Face directory that can't be used. */
export class PretrainedError extends DeepSpeedError {
  constructor(
    code: PretrainedErrorCode,
    /** The directory or file. */
    readonly path: string,
    detail: string,
    options?: { cause?: unknown },
  ) {
    super(code, `[fromPretrained] ${path}: ${detail}`, options);
  }
}
