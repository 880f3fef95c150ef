import type { Initialize } from '@deepspeed-ts/core';
import { type TokenSample, type TrainerOptions as UnboundOptions, Trainer as UnboundTrainer } from '@deepspeed-ts/transformers';
import { initialize } from './initialize.js';

/** As those of the Trainer of `@deepspeed-ts/transformers`, which takes `initialize` from here. */
export type TrainerOptions<Sample = TokenSample> = Omit<UnboundOptions<Sample>, 'initialize'> & { readonly initialize?: Initialize };

/** The Trainer of `@deepspeed-ts/transformers` with the engine of this package. */
export class Trainer<Sample = TokenSample> extends UnboundTrainer<Sample> {
  constructor(options: TrainerOptions<Sample>) {
    super({ initialize: initialize as Initialize, ...options });
  }
}
