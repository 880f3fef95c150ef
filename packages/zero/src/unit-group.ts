import type { Communicator } from '@deepspeed-ts/core';

/** A part of a unit as who brings it together sees it. */
export interface Gatherable {
  /** Whether the weights are there, or on their way. */
  readonly isWhole: boolean;
  /** Whether it holds memory for weights that are another rank's. */
  readonly isGathered: boolean;
  /** How many borrowers the weights have now. */
  readonly users: number;
  /** Begins to bring the weights together, unless that has happened. */
  gather(communicator: Communicator): void;
  /** Orders what is launched next after what the weights wait for. */
  wait(): void;
  /** Lets go of weights that are another rank's. */
  release(): void;
}

/** The parts of one unit of the model: they are used together, so they are gathered and released together. */
export class UnitGroup {
  constructor(
    readonly index: number,
    readonly parts: readonly Gatherable[],
  ) {}

  get isWhole(): boolean {
    return this.parts.every(({ isWhole }) => isWhole);
  }

  get isGathered(): boolean {
    return this.parts.some(({ isGathered }) => isGathered);
  }

  get isUsed(): boolean {
    return this.parts.some(({ users }) => users > 0);
  }

  gather(communicator: Communicator): void {
    for (const part of this.parts) part.gather(communicator);
  }

  wait(): void {
    for (const part of this.parts) part.wait();
  }

  release(): void {
    for (const part of this.parts) part.release();
  }
}
