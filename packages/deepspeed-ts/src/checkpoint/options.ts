import type { Differences } from './match.js';
import type { Rename } from './rename.js';

export interface SaveCheckpointOptions {
  /** Name of the checkpoint's directory; default `global_step{N}`. */
  readonly tag?: string;
  /** Anything that JSON can hold; what rank 0 gives is kept. */
  readonly clientState?: unknown;
  /** Small text files to lie in the checkpoint's folder, by name; those of rank 0 are written. */
  readonly files?: Readonly<Record<string, string>>;
  /** Let `latest` name this checkpoint; default true. */
  readonly saveLatest?: boolean;
  /** Delete all but this many checkpoints of the directory, oldest first, once this one is safe. Default: `checkpoint.keep_last` of the config, which keeps all. */
  readonly keepLast?: number;
  /** Leave the weights of frozen parameters out, as when they are those of a model that is at hand anyway; default: of adapters on a model that came from files. */
  readonly excludeFrozen?: boolean;
}

/** A checkpoint on its way to disk. */
export class SavedCheckpoint {
  /** Where it will be. */
  readonly path: string;
  readonly #finished: Promise<void>;
  #seen = false;

  constructor(path: string, finished: Promise<void>) {
    this.path = path;
    this.#finished = finished;
    // Nobody may look at it: then the next save, load or dispose tells.
    finished.catch(() => {});
  }

  /** Resolves on every rank once it is safe on disk and `latest` names it; rejects on every rank when it can't be. */
  get finished(): Promise<void> {
    this.#seen = true;
    return this.#finished.then();
  }

  /** Waits for the end; throws its error unless somebody has asked for `finished`, and so has it already. */
  async settle(): Promise<void> {
    await this.#finished.catch((error: unknown) => {
      if (!this.#seen) throw error;
    });
  }
}

export interface LoadCheckpointOptions {
  /** Default: the one that `latest` names. */
  readonly tag?: string;
  /** Refuse a checkpoint whose parameters differ from the model's; default true. Otherwise what fits is taken over and the rest reported. */
  readonly strict?: boolean;
  /** The model's names of parameters that the checkpoint has under other names: a table from theirs to ours, or a function. */
  readonly rename?: Rename;
  /** Take over optimizer states, and the gradients of a step that was under way; default true. */
  readonly optimizer?: boolean;
  /** Take over the place in the learning-rate schedule; default true. */
  readonly scheduler?: boolean;
  /** Take over weights alone: no counters, no place in the data or schedule, no optimizer states. Default false. */
  readonly moduleOnly?: boolean;
}

export interface LoadedCheckpoint extends Differences {
  readonly path: string;
  readonly clientState: unknown;
}
