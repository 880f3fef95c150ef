import { DeepSpeedError } from '../errors.js';

/** A pickle that can't be read: damaged, hostile, or of a kind that is not supported. Nothing of it was executed. */
export class PickleError extends DeepSpeedError {
  constructor(
    /** The file, and where the pickle is a member of an archive, its name. */
    readonly path: string,
    /** Of the opcode, from the first byte of the pickle. */
    readonly offset: number,
    /** As Python's `pickletools` calls it; `undefined` where none could be read. */
    readonly opcode: string | undefined,
    detail: string,
  ) {
    super('ERR_PICKLE', `[pickle] ${path}: byte ${offset}${opcode ? `, opcode ${opcode}` : ''}: ${detail}`);
  }
}
