import { DeepSpeedError } from '@deepspeed-ts/core';

export type TokenizerErrorCode = 'ERR_TOKENIZER' | 'ERR_NO_PAD_TOKEN' | 'ERR_CHAT_TEMPLATE';

/** A tokenizer that can't be loaded, or can't do what it is asked for. */
export class TokenizerError extends DeepSpeedError {
  constructor(code: TokenizerErrorCode, detail: string, options?: { cause?: unknown }) {
    super(code, `[tokenizer] ${detail}`, options);
  }
}
