import type { CheckpointedEngine, Module } from '@deepspeed-ts/core';
import type { JsonRecord, ResolvedArguments } from './arguments.js';
import type { LogEntry, TrainerState } from './state.js';

/** What a callback may ask of the training loop. Every rank must ask for the same. */
export class TrainerControl {
  /** End the training after this step. */
  shouldTrainingStop = false;
  /** Go to the next epoch after this step. */
  shouldEpochStop = false;
  shouldSave = false;
  shouldEvaluate = false;
  shouldLog = false;

  /** What holds for one step only. */
  newStep(): void {
    this.shouldSave = false;
    this.shouldEvaluate = false;
    this.shouldLog = false;
  }
}

/** What callbacks see besides arguments, state and control. */
export interface CallbackContext {
  readonly model: Module;
  readonly engine: CheckpointedEngine;
  readonly processingClass: unknown;
  /** In `onEvaluate`. */
  readonly metrics?: LogEntry | undefined;
  /** In `onLog`. */
  readonly logs?: LogEntry | undefined;
}

type Event = (args: ResolvedArguments, state: TrainerState, control: TrainerControl, context: CallbackContext) => void | Promise<void>;

/**
 * Looks at a training and steers it. Every rank calls it, and whatever it asks of `control` must follow from what is equal on all ranks:
 * arguments, state, logs and metrics.
 */
export interface TrainerCallback {
  onTrainBegin?: Event;
  onTrainEnd?: Event;
  onEpochBegin?: Event;
  onEpochEnd?: Event;
  onStepBegin?: Event;
  onStepEnd?: Event;
  onEvaluate?: Event;
  /** A checkpoint has been begun; it is safe on disk when the next one begins, or training ends. */
  onSave?: Event;
  onLog?: Event;
  /** What checkpoints keep of it, and `restore` is given when a training goes on. */
  readonly state?: () => JsonRecord;
  readonly restore?: (state: JsonRecord) => void;
}

export type CallbackEvent = Exclude<keyof TrainerCallback, 'state' | 'restore'>;

/** Callbacks in the order in which they are called. */
export class Callbacks {
  readonly #list: TrainerCallback[];

  constructor(list: readonly TrainerCallback[]) {
    this.#list = [...list];
  }

  add(callback: TrainerCallback): void {
    this.#list.push(callback);
  }

  async call(event: CallbackEvent, ...what: Parameters<Event>): Promise<void> {
    for (const callback of this.#list) {
      const pending = callback[event]?.(...what);
      // A step waits for those alone that have something to wait for.
      if (pending) await pending;
    }
  }

  /** By their place: a training goes on with the same callbacks. */
  states(): JsonRecord {
    return Object.fromEntries(this.#list.flatMap((callback, i) => (callback.state ? [[String(i), callback.state()]] : [])));
  }

  restore(states: JsonRecord): void {
    for (const [i, state] of Object.entries(states)) this.#list[Number(i)]?.restore?.(state as JsonRecord);
  }
}
