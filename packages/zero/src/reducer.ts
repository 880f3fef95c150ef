import { accumulate, type Communicator, launch, type Tensor, type Work } from '@deepspeed-ts/core';
import type { UnitState } from './unit-state.js';

/** A reduction that runs beside the rest of backward, and what to do with its result. */
interface InFlight {
  readonly work: Work;
  finish(): void;
}

/**
 * Averages gradients over ranks, a unit at a time, while backward computes the next unit. Every micro-batch is reduced by itself
 * at every stage, so that the order of additions, and with it every bit, is the same whether the sum is kept whole or as a slice.
 * Units go in the fixed order last to first: ranks that use parameters in different orders still agree on the collectives.
 */
export class Reducer {
  /** Trained parameters of each unit, and how many of them have no final gradient yet; counted anew in each pass, as users freeze and thaw. */
  #awaited: readonly number[] | undefined;
  #remaining: number[] = [];
  /** Index of the unit that is reduced next. */
  #next = -1;
  #inFlight: InFlight | undefined;
  #unreduced = false;
  /** False leaves gradients with the rank: they add up over passes, in one order at every stage, until a pass is reduced again. */
  reduces = true;

  constructor(
    readonly units: readonly UnitState[],
    readonly communicator: Communicator,
    readonly overlap: boolean,
  ) {}

  /** Whether there are gradients of this rank alone. */
  get hasUnreduced(): boolean {
    return this.#unreduced;
  }

  /** One parameter of the unit has its final gradient. */
  parameterDone(unit: UnitState): void {
    if (!this.reduces) return;
    this.#begin();
    this.#remaining[unit.index]!--;
    while (this.#next >= 0 && this.#remaining[this.#next]! <= 0) this.#reduceNext();
  }

  /** The end of a backward pass: reduces what is left (zeros for parameters that got no gradient) and waits its turn for all. */
  finish(always = false): void {
    if (!this.reduces && !always) {
      this.#unreduced = true;
      return;
    }
    this.#begin();
    while (this.#next >= 0) this.#reduceNext();
    this.settle();
    this.#awaited = undefined;
    this.#unreduced = false;
  }

  #begin(): void {
    if (this.#awaited) return;
    this.#awaited = this.units.map(({ layout }) => layout.placements.filter(({ parameter }) => parameter.requiresGrad).length);
    this.#remaining = [...this.#awaited];
    this.#next = this.units.length - 1;
  }

  #reduceNext(): void {
    const unit = this.units[this.#next]!;
    if (this.#awaited![this.#next]! > 0) {
      const previous = this.#inFlight;
      this.#inFlight = this.#start(unit);
      // Two local gradients at most are alive: this one and the one just being reduced.
      if (previous) complete(previous);
      if (!this.overlap) this.settle();
    }
    this.#next--;
  }

  /** Forgets a pass that has failed halfway. */
  abandon(): void {
    this.settle();
    this.#awaited = undefined;
    this.#unreduced = false;
  }

  /** Completes the reduction that is under way, if any. */
  settle(): void {
    const last = this.#inFlight;
    this.#inFlight = undefined;
    if (last) complete(last);
  }

  #start(unit: UnitState): InFlight {
    const local = unit.completeLocal();
    const started = unit.options.stage < 2 ? this.#allReduce(unit, local) : this.#reduceScatter(unit, local);
    // From here on the reduction owns it.
    unit.local = undefined;
    return started;
  }

  #allReduce(unit: UnitState, local: Tensor): InFlight {
    const work = this.communicator.allReduce(local, 'mean', `reduce ${unit.index} ${unit.layout.name}`);
    const first = unit.gradient === undefined;
    if (first) unit.gradient = local;
    return { work, finish: () => first || addTo(unit.gradient!, local) };
  }

  #reduceScatter(unit: UnitState, local: Tensor): InFlight {
    const slice = unit.newGradient(unit.layout.slice);
    const work = this.communicator.reduceScatter(slice, local, 'mean', `reduce ${unit.index} ${unit.layout.name}`);
    const first = unit.gradient === undefined;
    if (first) unit.gradient = slice;
    return {
      work,
      finish() {
        local.dispose();
        if (!first) addTo(unit.gradient!, slice);
      },
    };
  }
}

function complete({ work, finish }: InFlight): void {
  work.wait();
  finish();
}

function addTo(sum: Tensor, part: Tensor): void {
  launch(accumulate, [part], [sum], { alpha: 1 });
  part.dispose();
}
