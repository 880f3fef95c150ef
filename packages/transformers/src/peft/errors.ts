import { DeepSpeedError } from '@deepspeed-ts/core';

export type PeftErrorCode =
  /** A config that is wrong, or asks for what does not exist here. */
  | 'ERR_PEFT_CONFIG'
  /** Files of an adapter that are missing, damaged or of another model. */
  | 'ERR_PEFT_FILE'
  /** A call at a time when it can't be done. */
  | 'ERR_PEFT_STATE';

/** Adapters that can't be made, loaded, saved or merged. */
export class PeftError extends DeepSpeedError {
  constructor(code: PeftErrorCode, detail: string, options?: { cause?: unknown }) {
    super(code, `[peft] ${detail}`, options);
  }
}
