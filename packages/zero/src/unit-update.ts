import type { Tensor } from '@deepspeed-ts/core';
import type { Placement, Range, UnitLayout } from './layout.js';
import type { OptimizerRange } from './optimizer.js';
import type { UnitState } from './unit-state.js';

/** A parameter that is trained, and how. */
export interface Trained<Options> extends Placement {
  readonly options: Options;
}

/**
 * A unit as an optimizer that looks at whole parameters sees it. Ranges are in elements of the unit, and within `owned`: what this rank
 * updates. Views belong to the scope of the caller.
 */
export class UnitUpdate<Options> {
  readonly layout: UnitLayout;
  readonly owned: Range;
  /** Every rank updates all of the unit (stage 0); else each its slice. */
  readonly isWhole: boolean;
  readonly trained: readonly Trained<Options>[];
  readonly #unit: UnitState;
  readonly #options = new Map<Placement, Options>();
  readonly #gradient: Tensor;
  readonly #low: Tensor | undefined;

  constructor(unit: UnitState, optionsOf: (placement: Placement) => Options) {
    this.#unit = unit;
    this.layout = unit.layout;
    this.owned = unit.owned;
    this.isWhole = unit.options.stage === 0;
    for (const placement of unit.layout.placements) {
      if (placement.parameter.requiresGrad && placement.numel > 0) this.#options.set(placement, optionsOf(placement));
    }
    this.trained = [...this.#options].map(([placement, options]) => ({ ...placement, options }));
    this.#gradient = unit.ownedGradient();
    this.#low = unit.master.dtype === unit.values.dtype ? undefined : unit.ownedValues();
  }

  /** The dtype of weights in forward and backward. */
  get dtype() {
    return this.#unit.values.dtype;
  }

  /** Parts that are updated alike: neighbours with one options object are one. `wanted` leaves parameters out. */
  segments(wanted: (placement: Placement) => boolean = () => true): { key: Options; start: number; end: number }[] {
    return this.layout.segments(this.owned, (placement) => (wanted(placement) ? this.#options.get(placement) : undefined));
  }

  /** What of a parameter lies in a range of the unit. */
  part({ offset, numel }: Placement, within: Range): Range | undefined {
    const start = Math.max(offset, within.start);
    const end = Math.min(offset + numel, within.end);
    return start < end ? { start, end } : undefined;
  }

  /** The elements of each rank that this rank can see: of all ranks where it has the whole unit, else its own. */
  *slices(rank: number, ranks: number): Generator<{ rank: number; slice: Range }> {
    for (let r = this.isWhole ? 0 : rank; r < (this.isWhole ? ranks : rank + 1); r++) yield { rank: r, slice: this.layout.sliceOf(r) };
  }

  gradient(range: Range): Tensor {
    return this.#view(this.#gradient, range);
  }

  master(range: Range): Tensor {
    return this.#view(this.#unit.master, range);
  }

  /** The weights and, where there is one, their low-precision copy: the outputs of an update. */
  weights(range: Range): Tensor[] {
    return this.#low ? [this.master(range), this.#view(this.#low, range)] : [this.master(range)];
  }

  state(name: string, range: Range): Tensor {
    return this.#unit.states.find(({ spec }) => spec.name === name)!.part(range);
  }

  /** All that an elementwise optimizer needs. */
  range(start: number, end: number, stateNames: readonly string[], coefficient: Tensor): OptimizerRange {
    const range = { start, end };
    const states = stateNames.map((name) => this.state(name, range));
    const views = { gradient: this.gradient(range), master: this.master(range), states, coefficient };
    return this.#low ? { ...views, low: this.#view(this.#low, range) } : views;
  }

  /** Frees the gradient. */
  finish(): void {
    this.#unit.gradient!.dispose();
    this.#unit.gradient = undefined;
  }

  get unit(): UnitState {
    return this.#unit;
  }

  #view(tensor: Tensor, { start, end }: Range): Tensor {
    return tensor.narrow(start - this.owned.start, end - start);
  }
}
