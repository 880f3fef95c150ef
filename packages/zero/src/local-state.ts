import { bytesOf, cast, type DType, decode, fill, fromHost, launch, scope, type Tensor, write } from '@deepspeed-ts/core';
import { type ReadBytes, readerOf, type StateKind } from './export.js';
import type { Range, UnitLayout } from './layout.js';
import type { OptimizerState } from './optimizer-state.js';
import type { QuantizedUnit } from './quantized-unit.js';
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
  readonly read: ReadBytes;
}

/** Elements as bytes, as a device of this machine holds them. */
export interface StateBytes {
  readonly dtype: DType;
  readonly bytes: Uint8Array;
}

/** What a store takes state from, whoever wrote it at whatever stage and number of ranks. */
export interface StateSource {
  has(kind: StateKind, name: string): boolean;
  /** Elements `start` to `start + count` of the parameter, in row-major order. Several reads are under way at a time. */
  read(kind: StateKind, name: string, start: number, count: number): Promise<StateBytes>;
}

/** Elements that are read from a source at a time, and how many such reads are under way: what bounds the host memory of a load. */
const BLOCK = 2 ** 21;
const READS = 4;

/**
 * What this rank has to keep so that all ranks together keep everything once: its slice of every unit, which at stage 0 too is one
 * part in as many as there are ranks.
 */
export function* localState(units: readonly UnitState[]): Generator<StatePart> {
  for (const unit of units) {
    const { layout, owned, options, master, states, gradient } = unit;
    const slice = layout.sliceOf(options.rank);
    yield* partsOf('weights', master, owned, slice, layout);
    for (const state of states) yield* statePartsOf(state, slice);
    if (gradient) yield* partsOf(GRADIENT, gradient, gradientRange(unit), slice, layout);
  }
}

/** Takes over weights, and with `optimizer` its states and accumulated gradients too. What the source lacks is zero, and weights stay as they are. */
export async function takeOver(unit: UnitState, source: StateSource, optimizer: boolean): Promise<void> {
  const { layout, owned, master, states } = unit;
  unit.release();
  const weights = blocksOf('weights', master, owned, layout, source);
  if (!optimizer) return take(weights, source);
  for (const { tensor } of states) if (tensor.numel > 0) fill(tensor, 0);
  const kinds = states.flatMap((state) => stateBlocksOf(state, source));
  await take([...weights, ...kinds, ...gradientBlocks(unit, source)], source);
}

/** Takes over codes from the weights of a source, where it has them. */
export async function takeOverCodes(part: QuantizedUnit, source: StateSource): Promise<void> {
  part.release();
  for (const { key, start, end } of part.layout.segments(part.kept, (placement) => placement)) {
    if (!source.has('weights', key.name)) continue;
    for (let at = start; at < end; at += BLOCK) {
      const count = Math.min(BLOCK, end - at);
      const { dtype, bytes } = await source.read('weights', key.name, at - key.offset, count);
      const codes = part.part(at, at + count);
      try {
        scope(() => codes.set(fromHost(part.options.device, decode(bytes, [count], dtype), { kind: 'data' })));
      } finally {
        codes.dispose();
      }
    }
  }
}

/** The low-precision copy of weights that were taken over. */
export function castWeights(unit: UnitState): void {
  if (unit.master.dtype !== unit.values.dtype) scope(() => launch(cast, [unit.master], [unit.ownedValues()], {}));
}

function* partsOf(kind: StateKind, tensor: Tensor, held: Range, wanted: Range, layout: UnitLayout): Generator<StatePart> {
  for (const { key, start, end } of layout.segments(wanted, (placement) => placement)) {
    const count = end - start;
    const read = readerOf(tensor, start - held.start, count);
    yield { kind, name: key.name, start: start - key.offset, count, dtype: tensor.dtype, read };
  }
}

/** Where several elements share a value, `start` and `count` are those of values. */
function* statePartsOf(state: OptimizerState, wanted: Range): Generator<StatePart> {
  const { tensor, every, spec } = state;
  for (const { key, start, end } of state.segments(wanted)) {
    const { at, count } = state.indexOf({ start, end });
    yield {
      kind: spec.name,
      name: key.name,
      start: (start - key.offset) / every,
      count,
      dtype: tensor.dtype,
      read: readerOf(tensor, at, count),
    };
  }
}

/** Elements of a flat tensor that come from one place. */
interface Block {
  readonly kind: StateKind;
  readonly name: string;
  /** Of the parameter. */
  readonly start: number;
  readonly count: number;
  readonly target: Tensor;
  /** In the target. */
  readonly at: number;
}

/** What a source has for `target`, which covers `range` of the unit. */
function blocksOf(kind: StateKind, target: Tensor, range: Range, layout: UnitLayout, source: StateSource): Block[] {
  const blocks: Block[] = [];
  for (const { key, start, end } of layout.segments(range, (placement) => placement)) {
    if (!source.has(kind, key.name)) continue;
    for (let at = start; at < end; at += BLOCK) {
      blocks.push({ kind, name: key.name, start: at - key.offset, count: Math.min(BLOCK, end - at), target, at: at - range.start });
    }
  }
  return blocks;
}

function stateBlocksOf(state: OptimizerState, source: StateSource): Block[] {
  const blocks: Block[] = [];
  const { every, owned, tensor: target } = state;
  const kind = state.spec.name;
  for (const { key, start, end } of state.segments(owned)) {
    if (!source.has(kind, key.name)) continue;
    const { at, count } = state.indexOf({ start, end });
    const first = (start - key.offset) / every;
    for (let i = 0; i < count; i += BLOCK) {
      blocks.push({ kind, name: key.name, start: first + i, count: Math.min(BLOCK, count - i), target, at: at + i });
    }
  }
  return blocks;
}

function gradientBlocks(unit: UnitState, source: StateSource): Block[] {
  if (!unit.layout.placements.some(({ name }) => source.has(GRADIENT, name))) return [];
  const range = gradientRange(unit);
  unit.gradient = unit.newGradient(range.end - range.start);
  fill(unit.gradient, 0);
  return blocksOf(GRADIENT, unit.gradient, range, unit.layout, source);
}

/** Reads a few blocks at a time and puts them where they belong. */
async function take(blocks: readonly Block[], source: StateSource): Promise<void> {
  let next = 0;
  const reader = async () => {
    for (let block = blocks[next++]; block; block = blocks[next++]) {
      place(block, await source.read(block.kind, block.name, block.start, block.count));
    }
  };
  const readers = await Promise.allSettled(Array.from({ length: READS }, reader));
  for (const result of readers) if (result.status === 'rejected') throw result.reason;
}

function place({ target, at, count }: Block, { dtype, bytes }: StateBytes): void {
  if (dtype === target.dtype) {
    target.assertAlive();
    target.device.backend.write(target.handle, target.byteOffset + at * bytesOf(dtype), bytes);
  } else scope(() => write(target.narrow(at, count), decode(bytes, [count], dtype)));
}

/** The elements that the accumulated gradient of a unit covers on this rank. */
function gradientRange({ layout, options }: UnitState): Range {
  return options.stage < 2 ? layout.whole : layout.sliceOf(options.rank);
}
