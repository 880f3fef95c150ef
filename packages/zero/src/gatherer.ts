import { type Communicator, empty, unscoped } from '@deepspeed-ts/core';
import type { UnitState } from './unit-state.js';

/**
 * Brings units together when they are used and lets them go after. At most two are whole at a time at stage 3: the one in use
 * and the one that came next last time. Another order costs waiting, never correctness.
 */
export class Gatherer {
  #current: UnitState | undefined;
  #previous: UnitState | undefined;
  /** What came after a pair of units in use, last time: the pair tells forward from backward. */
  readonly #followers = new Map<string, UnitState>();

  constructor(
    readonly units: readonly UnitState[],
    readonly communicator: Communicator,
    readonly prefetch: boolean,
  ) {}

  /** Makes the weights of a unit whole and ready for what is launched next. */
  ensure(unit: UnitState): void {
    // What is current and not whole is what could not be gathered for want of memory.
    if (unit === this.#current && unit.isWhole) return;
    this.#advance(unit);
    if (unit.options.stage === 3) {
      const next = this.prefetch ? this.#followers.get(this.#pair()) : undefined;
      for (const other of this.units) if (other.gathered && other !== unit && other !== next && other.users === 0) other.release();
      if (!unit.gathered) this.#gather(unit);
    }
    unit.pending?.wait();
    unit.pending = undefined;
    if (unit.options.stage === 3 && this.prefetch) this.#prefetchNext();
  }

  /**
   * Brings a unit together whose weights have just changed, if the next pass begins with it: beside the update of the other units, where the
   * pass itself would wait for it. Two units are brought, for the second has nothing to hide behind while the first is an embedding.
   */
  gatherAhead(unit: UnitState): void {
    if (unit.options.stage !== 3 || !this.prefetch || unit.gathered) return;
    const first = this.#followers.get(BEGIN);
    if (unit === first || (first && unit === this.#followers.get(pairOf(undefined, first)))) this.#gather(unit);
  }

  /** Lets every gathered unit go, before weights change. */
  releaseAll(): void {
    this.#previous = undefined;
    this.#current = undefined;
    for (const unit of this.units) if (unit.options.stage === 3) unit.release();
  }

  #advance(unit: UnitState): void {
    this.#followers.set(this.#pair(), unit);
    this.#previous = this.#current;
    this.#current = unit;
  }

  #prefetchNext(): void {
    const next = this.#followers.get(this.#pair());
    if (next && !next.gathered) this.#gather(next);
  }

  #pair(): string {
    return pairOf(this.#previous, this.#current);
  }

  #gather(unit: UnitState): void {
    const { device, dtype } = unit.options;
    unit.gathered = unscoped(() => empty(device, [unit.layout.padded], dtype, { kind: 'parameters', shared: true }));
    unit.pending = this.communicator.allGather(unit.gathered, unit.values, `gather ${unit.index} ${unit.layout.name}`);
  }
}

function pairOf(previous: UnitState | undefined, current: UnitState | undefined): string {
  return `${previous?.index},${current?.index}`;
}

/** Before the first unit of a pass that follows a step. */
const BEGIN = pairOf(undefined, undefined);
