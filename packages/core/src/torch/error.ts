import { DeepSpeedError } from '../errors.js';

/** A file that `torch.save` did not write like this: cut, damaged, or of a kind that is not supported. */
export class TorchFileError extends DeepSpeedError {
  constructor(
    readonly path: string,
    detail: string,
    options?: { cause?: unknown },
  ) {
    super('ERR_TORCH_FILE', `[torch] ${path}: ${detail}`, options);
  }
}
