import type { CheckpointedEngine } from '@deepspeed-ts/core';
import { type JsonRecord, type ResolvedArguments, TrainerError } from './arguments.js';
import type { Callbacks } from './callbacks.js';
import { checkpointName, resumePoint, rotate } from './checkpoints.js';
import type { LossHistory, LossHistoryState } from './loss-history.js';
import type { TrainerState } from './state.js';

/** What of a Trainer is saved beside the state of its engine. */
export interface Kept {
  readonly state: TrainerState;
  readonly callbacks: Callbacks;
  readonly losses: LossHistory;
}

/** The epoch under way and the step at which it began. */
export interface EpochPlace {
  readonly epoch: number;
  readonly epoch_start: number;
}

interface Saved {
  readonly trainer: JsonRecord;
  readonly callbacks: JsonRecord;
  readonly losses: LossHistoryState;
  readonly place: EpochPlace;
}

/** Saves and loads the checkpoints of a Trainer, in its output folder. Every rank makes each call. */
export class CheckpointKeeper {
  /** Of the checkpoint that is being written, and of those that then go. */
  #saving: Promise<void> | undefined;

  constructor(
    private readonly engine: CheckpointedEngine,
    private readonly args: ResolvedArguments,
  ) {}

  /** Resolves once everything is copied; it is written while training goes on. */
  async save({ state, callbacks, losses }: Kept, place: EpochPlace): Promise<void> {
    const { outputDir, saveTotalLimit } = this.args;
    await this.settle();
    const saved: Saved = { trainer: state.toJSON(), callbacks: callbacks.states(), losses: await losses.state(), place };
    const files = { 'trainer_state.json': `${JSON.stringify(saved.trainer, null, 2)}\n` };
    const tag = checkpointName(state.globalStep);
    const { finished } = await this.engine.saveCheckpoint(outputDir, { tag, clientState: saved, files });
    const best = state.bestModelCheckpoint;
    const rotates = this.engine.communicator.rank === 0 && saveTotalLimit !== null;
    this.#saving = finished.then(() => (rotates ? rotate(outputDir, saveTotalLimit, best) : undefined));
    // Told by the next save, or the end.
    this.#saving.catch(() => {});
  }

  /** Waits for a checkpoint that is being written. @throws what went wrong with it, on every rank */
  async settle(): Promise<void> {
    const saving = this.#saving;
    this.#saving = undefined;
    await saving;
  }

  /**
   * Goes on from a checkpoint, or from the last one.
   *
   * @throws TrainerError where it was not saved by a Trainer
   */
  async resume(from: string | true, { state, callbacks, losses }: Kept): Promise<EpochPlace> {
    const { directory, tag } = await resumePoint(from, this.args.outputDir);
    const loaded = await this.engine.loadCheckpoint(directory, { tag });
    const saved = loaded?.clientState as Saved | null | undefined;
    if (!saved?.trainer)
      throw new TrainerError(`resumeFromCheckpoint: ${directory}/${tag} was not saved by a Trainer; engine.loadCheckpoint() takes it`);
    state.restore(saved.trainer);
    callbacks.restore(saved.callbacks);
    losses.restore(saved.losses);
    return saved.place;
  }

  /** The weights of the best checkpoint, where there is one. */
  async loadBest({ bestGlobalStep }: TrainerState): Promise<void> {
    if (bestGlobalStep === null) return;
    await this.engine.loadCheckpoint(this.args.outputDir, { tag: checkpointName(bestGlobalStep), moduleOnly: true });
  }
}
