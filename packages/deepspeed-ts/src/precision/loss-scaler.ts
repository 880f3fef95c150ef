import { DeepSpeedError } from '@deepspeed-ts/core';

/**
 * What backward multiplies the loss with, so that small gradients survive in float16 (Micikevicius et al., arXiv:1710.03740). Gradients
 * are divided by it again before they are used.
 */
export interface LossScaler {
  readonly scale: number;
  /** After a step: moves the scale. False: gradients overflowed though the scale can't fall any more. */
  update(overflow: boolean): boolean;
}

/** A scale that nothing moves; 1 for precisions that need none. */
export function fixedLossScale(scale: number): LossScaler {
  return { scale, update: () => true };
}

export interface DynamicLossScaleOptions {
  /** The scale begins at 2 to this power. */
  readonly initialScalePower: number;
  /** Clean steps between two doublings. */
  readonly window: number;
  /** The overflow of this number is the first that halves the scale. */
  readonly hysteresis: number;
  /** A clean step forgives earlier overflows; otherwise only a full window does. */
  readonly consecutiveHysteresis: boolean;
  readonly minScale: number;
}

/** What a checkpoint keeps of a scaler; the names are DeepSpeed's. */
export interface LossScalerState {
  readonly cur_scale: number;
  readonly cur_iter: number;
  readonly last_overflow_iter: number;
  readonly cur_hysteresis: number;
}

const FACTOR = 2;

/**
 * DeepSpeed's rules, to the step: an overflow halves the scale once hysteresis is used up; after a full window of clean steps (the step
 * right after an overflow, or the very first one, does not count) it doubles and hysteresis is whole again.
 */
export class DynamicLossScaler implements LossScaler {
  #scale: number;
  #iteration = 0;
  #lastOverflow = -1;
  #hysteresis: number;

  constructor(readonly options: DynamicLossScaleOptions) {
    this.#scale = FACTOR ** options.initialScalePower;
    this.#hysteresis = options.hysteresis;
  }

  get scale(): number {
    return this.#scale;
  }

  /** Steps so far. */
  get iteration(): number {
    return this.#iteration;
  }

  update(overflow: boolean): boolean {
    const possible = overflow ? this.#fall() : this.#rise();
    if (overflow) this.#lastOverflow = this.#iteration;
    this.#iteration++;
    return possible;
  }

  stateDict(): LossScalerState {
    return { cur_scale: this.#scale, cur_iter: this.#iteration, last_overflow_iter: this.#lastOverflow, cur_hysteresis: this.#hysteresis };
  }

  /** @throws DeepSpeedError `ERR_STATE` when the state is not one that `stateDict()` gave. */
  loadStateDict(state: LossScalerState): void {
    const { cur_scale, cur_iter, last_overflow_iter, cur_hysteresis } = state;
    const whole = [cur_iter, last_overflow_iter, cur_hysteresis].every(Number.isInteger);
    if (!whole || !(cur_scale > 0) || cur_iter < 0 || last_overflow_iter >= Math.max(cur_iter, 0) || cur_hysteresis < 1) {
      throw new DeepSpeedError(
        'ERR_STATE',
        `loss scaler state: expected cur_scale > 0, integers cur_iter >= 0, last_overflow_iter < cur_iter and cur_hysteresis >= 1, got ${JSON.stringify(state)}`,
      );
    }
    this.#scale = cur_scale;
    this.#iteration = cur_iter;
    this.#lastOverflow = last_overflow_iter;
    this.#hysteresis = cur_hysteresis;
  }

  #fall(): boolean {
    const { minScale } = this.options;
    if (this.#hysteresis > 1) {
      this.#hysteresis--;
      return true;
    }
    if (this.#scale === minScale) return false;
    this.#scale = Math.max(this.#scale / FACTOR, minScale);
    return true;
  }

  #rise(): boolean {
    const { window, hysteresis, consecutiveHysteresis } = this.options;
    const clean = this.#iteration - this.#lastOverflow - 1;
    const full = clean > 0 && clean % window === 0;
    if (consecutiveHysteresis || full) this.#hysteresis = hysteresis;
    if (full) this.#scale *= FACTOR;
    return true;
  }
}
