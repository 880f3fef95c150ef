import type { Parameter, Unit } from '@deepspeed-ts/core';
import type { Keeping } from './unit-parts.js';

/** Slices begin at multiples of this many elements, so that no two ranks write one cache line. */
const ALIGNMENT = 32;

/** A parameter's place in its unit's flat buffer, in elements. */
export interface Placement {
  readonly name: string;
  readonly parameter: Parameter;
  readonly offset: number;
  readonly numel: number;
}

/** A range of elements of a unit. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * How a unit lies in memory: its parameters one after the other in a flat buffer, padded at the end so that each of `ranks` owns
 * an equal contiguous slice. Parameters begin, and slices are cut, at multiples of `alignment`, for optimizers that keep blocks of them together.
 */
export class UnitLayout {
  readonly name: string;
  readonly keeping: Keeping;
  readonly placements: readonly Placement[];
  /** Elements of all parameters, without padding. */
  readonly numel: number;
  /** Elements of the flat buffer. */
  readonly padded: number;
  /** Elements that each rank owns. */
  readonly slice: number;
  readonly #byParameter: ReadonlyMap<Parameter, Placement>;

  constructor(unit: Unit & { readonly keeping?: Keeping }, ranks: number, alignment = 1) {
    let offset = 0;
    let numel = 0;
    this.name = unit.name;
    this.keeping = unit.keeping ?? 'trained';
    this.placements = [...unit.parameters].map(([name, parameter]) => {
      const placement = { name, parameter, offset, numel: parameter.numel };
      numel += parameter.numel;
      offset = roundUp(offset + parameter.numel, alignment);
      return placement;
    });
    this.numel = numel;
    this.slice = roundUp(Math.ceil(offset / ranks), Math.max(ALIGNMENT, alignment));
    this.padded = this.slice * ranks;
    this.#byParameter = new Map(this.placements.map((placement) => [placement.parameter, placement]));
  }

  placementOf(parameter: Parameter): Placement {
    return this.#byParameter.get(parameter)!;
  }

  sliceOf(rank: number): Range {
    return { start: rank * this.slice, end: (rank + 1) * this.slice };
  }

  get whole(): Range {
    return { start: 0, end: this.padded };
  }

  /** Padding: what lies between parameters and behind the last. */
  *gaps(): Generator<Range> {
    let end = 0;
    for (const { offset, numel } of this.placements) {
      if (offset > end) yield { start: end, end: offset };
      end = offset + numel;
    }
    if (this.padded > end) yield { start: end, end: this.padded };
  }

  /** The parts of parameters that lie in a range: neighbours that `keyOf` gives one key are merged; `undefined` leaves out. */
  segments<K>(range: Range, keyOf: (placement: Placement) => K | undefined): { key: K; start: number; end: number }[] {
    const result: { key: K; start: number; end: number }[] = [];
    for (const placement of this.placements) {
      const start = Math.max(range.start, placement.offset);
      const end = Math.min(range.end, placement.offset + placement.numel);
      const key = keyOf(placement);
      if (start >= end || key === undefined) continue;
      const last = result.at(-1);
      if (last && last.key === key && last.end === start) last.end = end;
      else result.push({ key, start, end });
    }
    return result;
  }
}

function roundUp(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple;
}
