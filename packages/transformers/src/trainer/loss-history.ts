import type { LossSum } from './loss-sum.js';

/** What a checkpoint keeps of it. */
export interface LossHistoryState {
  readonly open_loss: number;
  readonly logged_loss: number;
  readonly last_logged: number;
}

/** Losses of steps since the last log, which wait on the device, and of all steps before. */
export class LossHistory {
  #lastLogged = 0;
  /** Of steps that were logged, added up. */
  #logged = 0;

  constructor(readonly sum: LossSum) {}

  /** The step of the last log. */
  get lastLogged(): number {
    return this.#lastLogged;
  }

  /** The mean loss of the steps since the last log. Every rank calls it. */
  async log(step: number): Promise<number> {
    const total = await this.sum.take();
    const steps = step - this.#lastLogged;
    this.#logged += total;
    this.#lastLogged = step;
    return total / steps;
  }

  /** The mean loss of all steps so far; NaN before the first. What was not logged is lost. Every rank calls it. */
  async mean(step: number): Promise<number> {
    return (this.#logged + (await this.sum.take())) / step;
  }

  /** Every rank calls it, and none waits for it but to save. */
  async state(): Promise<LossHistoryState> {
    const open = await this.sum.take();
    this.sum.put(open);
    return { open_loss: open, logged_loss: this.#logged, last_logged: this.#lastLogged };
  }

  restore({ open_loss, logged_loss, last_logged }: LossHistoryState): void {
    this.sum.put(open_loss);
    this.#logged = logged_loss;
    this.#lastLogged = last_logged;
  }
}
