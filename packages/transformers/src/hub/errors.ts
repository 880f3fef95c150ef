import { DeepSpeedError } from '@deepspeed-ts/core';

export type HubErrorCode =
  /** Not in the cache, and the Hub is not to be asked. */
  | 'ERR_HUB_OFFLINE'
  | 'ERR_HUB_NOT_FOUND'
  /** Private or gated, and the token does not open it. */
  | 'ERR_HUB_ACCESS'
  /** The Hub can't be reached. */
  | 'ERR_HUB_UNREACHABLE'
  /** What came is not what was announced. */
  | 'ERR_HUB_DOWNLOAD';

/** A model that could not be had from the Hugging Face Hub, or from the cache of what was downloaded from it. */
export class HubError extends DeepSpeedError {
  declare readonly code: HubErrorCode;

  constructor(
    code: HubErrorCode,
    /** Id of the repository. */
    readonly repo: string,
    detail: string,
    options?: { cause?: unknown },
  ) {
    super(code, `[hub] ${repo}: ${detail}`, options);
  }
}
