import { DeepSpeedError } from '@deepspeed-ts/core';
import type { Betas, Schedule } from './schedule.js';

/** What a checkpoint keeps of a scheduler; the names are DeepSpeed's. */
export interface SchedulerState {
  readonly last_batch_iteration: number;
}

/**
 * Steps through a {@link Schedule} for the parameter groups of an optimizer. The engine calls `step()` after each optimizer step that
 * was applied, so the first optimizer step runs with the value before any `step()`.
 */
export class LRScheduler {
  #iteration = -1;

  /** @param baseLrs - The learning rate of each parameter group in the optimizer's settings. */
  constructor(
    readonly schedule: Schedule,
    readonly baseLrs: readonly number[],
  ) {}

  /** Index of the last `step()`, from 0; -1 before the first. */
  get lastBatchIteration(): number {
    return this.#iteration;
  }

  /** Learning rate of the next optimizer step, one entry per parameter group. */
  get lr(): number[] {
    return this.baseLrs.map((base) => this.schedule.lr(this.#iteration, base));
  }

  /** Betas of the next optimizer step where the policy sets them; otherwise the optimizer keeps its own. */
  get betas(): Betas | undefined {
    return this.schedule.betas?.(this.#iteration);
  }

  /** Moves to the next iteration, or to the one given. */
  step(iteration: number = this.#iteration + 1): void {
    this.#iteration = iteration;
  }

  stateDict(): SchedulerState {
    return { last_batch_iteration: this.#iteration };
  }

  /** @throws DeepSpeedError `ERR_STATE` when the state is not one that `stateDict()` gave. */
  loadStateDict(state: SchedulerState): void {
    const iteration: unknown = state.last_batch_iteration;
    if (!Number.isInteger(iteration) || (iteration as number) < -1) {
      throw new DeepSpeedError(
        'ERR_STATE',
        `scheduler state: expected last_batch_iteration to be an integer >= -1, got ${String(iteration)}`,
      );
    }
    this.#iteration = iteration as number;
  }
}
