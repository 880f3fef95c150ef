import type { Communicator } from '@deepspeed-ts/core';
import type { UnitGroup } from './unit-group.js';

export interface GathererOptions {
  readonly communicator: Communicator;
  /** Whether weights are sharded: else there is nothing to gather, only to wait for. */
  readonly sharded: boolean;
  /** Gather the next unit beside the one in use. */
  readonly prefetch: boolean;
}

/**
 * Brings units together when they are used and lets them go after. At most two are whole at a time at stage 3: the one in use
 * and the one that came next last time. Another order costs waiting, never correctness.
 */
export class Gatherer {
  #current: UnitGroup | undefined;
  #previous: UnitGroup | undefined;
  /** What came after a pair of units in use, last time: the pair tells forward from backward. */
  readonly #followers = new Map<string, UnitGroup>();

  constructor(
    readonly units: readonly UnitGroup[],
    readonly options: GathererOptions,
  ) {}

  /** Makes the weights of a unit whole and ready for what is launched next. */
  ensure(unit: UnitGroup): void {
    // What is current and not whole is what could not be gathered for want of memory.
    if (unit === this.#current && unit.isWhole) return;
    const { sharded, prefetch, communicator } = this.options;
    this.#advance(unit);
    if (sharded) {
      const next = prefetch ? this.#followers.get(this.#pair()) : undefined;
      for (const other of this.units) if (other.isGathered && other !== unit && other !== next && !other.isUsed) other.release();
      unit.gather(communicator);
    }
    unit.wait();
    if (sharded && prefetch) this.#followers.get(this.#pair())?.gather(communicator);
  }

  /**
   * Brings a unit together whose weights have just changed, if the next pass begins with it: beside the update of the other units, where the
   * pass itself would wait for it. Two units are brought, for the second has nothing to hide behind while the first is an embedding.
   */
  gatherAhead(unit: UnitGroup): void {
    const { sharded, prefetch, communicator } = this.options;
    if (!sharded || !prefetch) return;
    const first = this.#followers.get(BEGIN);
    if (unit === first || (first && unit === this.#followers.get(pairOf(undefined, first)))) unit.gather(communicator);
  }

  /** Lets every gathered unit go, before weights change. */
  releaseAll(): void {
    this.#previous = undefined;
    this.#current = undefined;
    if (this.options.sharded) for (const unit of this.units) unit.release();
  }

  #advance(unit: UnitGroup): void {
    this.#followers.set(this.#pair(), unit);
    this.#previous = this.#current;
    this.#current = unit;
  }

  #pair(): string {
    return pairOf(this.#previous, this.#current);
  }
}

function pairOf(previous: UnitGroup | undefined, current: UnitGroup | undefined): string {
  return `${previous?.index},${current?.index}`;
}

/** Before the first unit of a pass that follows a step. */
const BEGIN = pairOf(undefined, undefined);
