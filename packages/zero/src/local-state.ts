import { cast, type DType, fill, type HostTensor, launch, scope, type Tensor, write } from '@deepspeed-ts/core';
import { bytesOfRange, type StateKind } from './export.js';
import type { Range, UnitLayout } from './layout.js';
import type { UnitState } from './unit-state.js';

/** The kind of accumulated gradients, between the micro-batches of a step. */
export const GRADIENT = 'gradient';

/** Elements of one parameter that lie together: `start` to `start + count` in row-major order. */
export interface StatePart {
  /** {@link GRADIENT} too. */
  readonly kind: StateKind;
  readonly name: string;
  readonly start: number;
  readonly count: number;
  readonly dtype: DType;
  /** As the device holds them. */
  read(): Promise<Uint8Array>;
}

/** What a store takes state from, whoever wrote it at whatever stage and number of ranks. */
export interface StateSource {
  has(kind: StateKind, name: string): boolean;
  /** Elements `start` to `start + count` of the parameter, in row-major order. */
  read(kind: StateKind, name: string, start: number, count: number): HostTensor;
}

/** Elements that are read from a source at a time. */
const CHUNK = 2 ** 20;

/**
 * What this rank has to keep so that all ranks together keep everything once: its slice of every unit, which at stage 0 too is one
 * part in as many as there are ranks.
 */
export function* localState(units: readonly UnitState[], stateNames: readonly string[]): Generator<StatePart> {
  for (const unit of units) {
    const { layout, owned, options, master, states, gradient } = unit;
    const slice = layout.sliceOf(options.rank);
    yield* partsOf('weights', master, owned, slice, layout);
    for (const [i, kind] of stateNames.entries()) yield* partsOf(kind, states[i]!, owned, slice, layout);
    if (gradient) yield* partsOf(GRADIENT, gradient, gradientRange(unit), slice, layout);
  }
}

/** Takes over weights, and with `optimizer` its states and accumulated gradients too. What the source lacks is zero, and weights stay as they are. */
export function takeOver(unit: UnitState, source: StateSource, stateNames: readonly string[], optimizer: boolean): void {
  const { layout, owned, master, states } = unit;
  unit.release();
  take('weights', master, owned, layout, source);
  if (master.dtype !== unit.values.dtype) scope(() => launch(cast, [master], [unit.ownedValues()], {}));
  if (!optimizer) return;
  for (const [i, kind] of stateNames.entries()) {
    fill(states[i]!, 0);
    take(kind, states[i]!, owned, layout, source);
  }
  if (!layout.placements.some(({ name }) => source.has(GRADIENT, name))) return;
  const range = gradientRange(unit);
  unit.gradient = unit.newGradient(range.end - range.start);
  fill(unit.gradient, 0);
  take(GRADIENT, unit.gradient, range, layout, source);
}

function* partsOf(kind: StateKind, tensor: Tensor, held: Range, wanted: Range, layout: UnitLayout): Generator<StatePart> {
  for (const { key, start, end } of layout.segments(wanted, (placement) => placement)) {
    const count = end - start;
    const read = () => bytesOfRange(tensor, start - held.start, count);
    yield { kind, name: key.name, start: start - key.offset, count, dtype: tensor.dtype, read };
  }
}

function take(kind: StateKind, target: Tensor, range: Range, layout: UnitLayout, source: StateSource): void {
  for (const { key, start, end } of layout.segments(range, (placement) => placement)) {
    if (!source.has(kind, key.name)) continue;
    for (let at = start; at < end; at += CHUNK) {
      const count = Math.min(CHUNK, end - at);
      const values = source.read(kind, key.name, at - key.offset, count);
      scope(() => write(target.narrow(at - range.start, count), values));
    }
  }
}

/** The elements that the accumulated gradient of a unit covers on this rank. */
function gradientRange({ layout, options }: UnitState): Range {
  return options.stage < 2 ? layout.whole : layout.sliceOf(options.rank);
}
