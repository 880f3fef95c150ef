import { DeepSpeedError } from '@deepspeed-ts/core';

/** Training data that can't be used: too little of it, samples that don't fit together, a cursor of other data. */
export class DataError extends DeepSpeedError {
  constructor(message: string) {
    super('ERR_DATA', message);
  }
}
