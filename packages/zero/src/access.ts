import {
  type Communicator,
  cast,
  copy,
  DeepSpeedError,
  type Device,
  type DType,
  decode,
  empty,
  fromHost,
  hostTensor,
  launch,
  nearest,
  scope,
  type Tensor,
  unscoped,
} from '@deepspeed-ts/core';
import type { StateKind } from './export.js';
import type { Placement, Range } from './layout.js';
import { GRADIENT } from './local-state.js';
import { type OptimizerState, statesNamed, valuesOf } from './optimizer-state.js';
import { QuantizedUnit } from './quantized-unit.js';
import type { UnitState } from './unit-state.js';

export interface AccessContext {
  readonly units: readonly (UnitState | QuantizedUnit)[];
  readonly communicator: Communicator;
  readonly device: Device;
  readonly stateNames: readonly string[];
}

/** This rank's part of one parameter's state: elements `start` to `start + data.length` in row-major order. */
export interface LocalValues {
  readonly start: number;
  readonly data: Float32Array;
}

/** What a rank holds of one kind of state of a unit. */
interface Held {
  readonly tensor: Tensor;
  readonly range: Range;
  /** A view, or values that codes stand for: to be disposed. */
  readonly isCopy?: boolean;
}

/**
 * State of single parameters, read and written in f32 whatever it is kept in: 'weights' (master weights), {@link GRADIENT} (as accumulated
 * so far, multiplied with the loss scale) or a state of the optimizer. Made for looking and for experiments: a call moves one parameter, at
 * every stage the same way, and no other. A rank's local part is its slice of the unit at every stage, at stage 0 too. All but
 * `readLocal` are called by every rank, with the same arguments, between passes.
 */
export class ParameterAccess {
  readonly #context: AccessContext;

  constructor(context: AccessContext) {
    this.#context = context;
  }

  /** @throws DeepSpeedError naming the nearest, where there is no such parameter or state */
  check(kind: StateKind, name: string): Placement {
    const { units, stateNames } = this.#context;
    const names = units.flatMap(({ layout }) => layout.placements.map((placement) => placement.name));
    assertKnown(name, names, 'ERR_UNKNOWN_PARAMETER', 'a parameter');
    assertKnown(kind, ['weights', GRADIENT, ...stateNames], 'ERR_UNKNOWN_STATE', 'a state');
    return this.#find(name).placement;
  }

  /** Whether there is anything to read: gradients are there from `finishBackward` to `step`, for parameters that are trained. */
  has(kind: StateKind, name: string): boolean {
    const { unit, placement } = this.#find(name);
    if (kind === 'weights') return true;
    if (unit instanceof QuantizedUnit) return false;
    if (kind === GRADIENT) return placement.parameter.requiresGrad && unit.gradient !== undefined;
    return stateOf(unit, kind, placement) !== undefined;
  }

  /** The whole parameter's. `undefined` where there is none. */
  async readFull(kind: StateKind, name: string): Promise<Float32Array | undefined> {
    this.check(kind, name);
    if (!this.has(kind, name)) return undefined;
    const { unit, placement } = this.#find(name);
    if (unit instanceof QuantizedUnit) return this.#readValues(unit, placement);
    const { tensor, range, isCopy } = this.#held(unit, kind, placement);
    const { offset: start, numel } = placement;
    try {
      if (isWhole(unit, kind)) return await this.#read(tensor, start - range.start, numel);
      const whole = this.#gather(unit, placement, dtypeOf(unit, kind, placement), (part) => view(tensor, range, part));
      try {
        return await this.#read(whole, 0, numel);
      } finally {
        whole.dispose();
      }
    } finally {
      if (isCopy) tensor.dispose();
    }
  }

  /** Rank 0's values count, so that ranks can't drift apart. Weights are written to their low-precision copies too. */
  writeFull(kind: StateKind, name: string, values: ArrayLike<number>): void {
    this.checkFull(kind, name, values.length);
    const { numel } = this.#find(name).placement;
    if (numel === 0) return;
    const { communicator, device } = this.#context;
    scope(() => {
      const whole = fromHost(device, hostTensor([numel], 'f32', values), { kind: 'communication', shared: true });
      communicator.broadcast(whole, 0, `write ${kind} of ${name}`).wait();
      this.#put(kind, name, whole);
    });
  }

  /** Of this rank alone: asks no other. `undefined` where there is none. */
  async readLocal(kind: StateKind, name: string): Promise<LocalValues | undefined> {
    this.check(kind, name);
    if (!this.has(kind, name)) return undefined;
    const { unit, placement } = this.#find(name);
    const part = this.#localPart(unit, placement);
    if (unit instanceof QuantizedUnit) return { start: part.start - placement.offset, data: await this.#readCodes(unit, part) };
    const { tensor, range, isCopy } = this.#held(unit, kind, placement);
    try {
      const data = await this.#read(tensor, part.start - range.start, part.end - part.start);
      return { start: part.start - placement.offset, data };
    } finally {
      if (isCopy) tensor.dispose();
    }
  }

  /** Each rank gives the values of its own part. */
  writeLocal(kind: StateKind, name: string, values: ArrayLike<number>): void {
    this.checkLocal(kind, name, values.length);
    const { unit, placement } = this.#findWeights(name);
    if (placement.numel === 0) return;
    const { device } = this.#context;
    scope(() => {
      const mine = fromHost(device, hostTensor([values.length], 'f32', values), { kind: 'communication' });
      const whole = this.#gather(unit, placement, 'f32', () => mine);
      this.#put(kind, name, whole);
      whole.dispose();
    });
  }

  /** @throws DeepSpeedError where there is nothing to write, or the parameter has another number of elements */
  checkFull(kind: StateKind, name: string, count: number): void {
    const { numel, parameter } = this.check(kind, name);
    this.#assertThere(kind, name);
    if (count !== numel) throw sizeError(name, `${numel} values, shape [${parameter.shape.join(', ')}]`, count);
  }

  /** @throws DeepSpeedError where this rank's part of the parameter has another number of elements */
  checkLocal(kind: StateKind, name: string, count: number): void {
    this.check(kind, name);
    this.#assertThere(kind, name);
    const { unit, placement } = this.#find(name);
    const { start, end } = this.#localPart(unit, placement);
    const own = `${end - start} values, the part of rank ${this.#context.communicator.rank}`;
    if (count !== end - start) throw sizeError(name, own, count);
  }

  #assertThere(kind: StateKind, name: string): void {
    if (kind === GRADIENT && !this.has(kind, name)) {
      const text = `[${name}] has no gradient to set: it is there between backward() and step(), for parameters that are trained`;
      throw new DeepSpeedError('ERR_NO_GRADIENT', text);
    }
    if (!this.has(kind, name)) throw new DeepSpeedError('ERR_UNKNOWN_STATE', `[${name}] the optimizer keeps no ${kind} of it`);
    const { unit, placement } = this.#findWeights(name);
    if (stateOf(unit, kind, placement)?.spec.codes) {
      throw new DeepSpeedError('ERR_UNKNOWN_STATE', `[${name}] its ${kind} is kept in 8 bits, and can be read but not set`);
    }
  }

  /** @throws DeepSpeedError where it is kept as codes, which nothing can be written to */
  #findWeights(name: string): { unit: UnitState; placement: Placement } {
    const { unit, placement } = this.#find(name);
    if (!(unit instanceof QuantizedUnit)) return { unit, placement };
    throw new DeepSpeedError('ERR_QUANTIZED', `[${name}] it is kept as ${unit.layout.keeping} codes, and can be read but not set`);
  }

  #find(name: string): { unit: UnitState | QuantizedUnit; placement: Placement } {
    for (const unit of this.#context.units) {
      for (const placement of unit.layout.placements) if (placement.name === name) return { unit, placement };
    }
    throw new Error(`no parameter ${name}`);
  }

  /** What this rank holds of a parameter, and maybe more. */
  #held(unit: UnitState, kind: StateKind, placement: Placement): Held {
    if (kind === 'weights') return { tensor: unit.master, range: unit.owned };
    if (kind === GRADIENT) {
      const { layout, options } = unit;
      return { tensor: unit.gradient!, range: options.stage < 2 ? layout.whole : layout.sliceOf(options.rank) };
    }
    const range = intersection(unit.owned, { start: placement.offset, end: placement.offset + placement.numel });
    // A rank that has nothing of it is asked for nothing.
    if (range.start === range.end) return { tensor: unit.master, range };
    const state = stateOf(unit, kind, placement)!;
    const tensor = unscoped(() => valuesOf(unit.states, state, range));
    return { tensor, range, isCopy: true };
  }

  /** In elements of the unit. Empty parts are at the parameter's end. */
  #localPart({ layout }: UnitState | QuantizedUnit, { offset, numel }: Placement): Range {
    return intersection(layout.sliceOf(this.#context.communicator.rank), { start: offset, end: offset + numel });
  }

  /** A parameter out of the parts that ranks own. The caller disposes it. */
  #gather(unit: UnitState, placement: Placement, dtype: DType, mine: (part: Range) => Tensor): Tensor {
    const { communicator, device } = this.#context;
    const { offset, numel } = placement;
    const whole = unscoped(() => empty(device, [numel], dtype, { kind: 'communication', shared: true }));
    scope(() => {
      for (let rank = 0; rank < communicator.size; rank++) {
        const part = intersection(unit.layout.sliceOf(rank), { start: offset, end: offset + numel });
        if (part.start === part.end) continue;
        const target = whole.narrow(part.start - offset, part.end - part.start);
        if (rank === communicator.rank) launch(copy, [mine(part)], [target], {});
        communicator.broadcast(target, rank, `read ${placement.name}`).wait();
      }
    });
    return whole;
  }

  /** Writes f32 values of a whole parameter wherever this rank holds them. */
  #put(kind: StateKind, name: string, whole: Tensor): void {
    const { unit, placement } = this.#findWeights(name);
    // Collectives that read or write these weights come first; what stage 3 has gathered is stale.
    if (unit.options.stage === 3) unit.release();
    unit.wait();
    const held: Held[] = [this.#held(unit, kind, placement)];
    if (kind === 'weights') held.push({ tensor: unit.values, range: unit.kept });
    const all = { start: placement.offset, end: placement.offset + placement.numel };
    scope(() => {
      for (const { tensor, range } of held) {
        const part = intersection(range, all);
        if (part.start === part.end) continue;
        const from = whole.narrow(part.start - all.start, part.end - part.start);
        launch(cast, [from], [view(tensor, range, part)], {});
      }
    });
    for (const { tensor, isCopy } of held) if (isCopy) tensor.dispose();
  }

  /** What a parameter's codes stand for. */
  async #readValues(unit: QuantizedUnit, placement: Placement): Promise<Float32Array> {
    unit.gather(this.#context.communicator);
    unit.wait();
    const values = unit.values(placement, [placement.numel], 'f32');
    try {
      return await this.#read(values, 0, placement.numel);
    } finally {
      values.dispose();
      if (unit.users === 0) unit.release();
    }
  }

  /** What codes that this rank keeps stand for. */
  async #readCodes(unit: QuantizedUnit, { start, end }: Range): Promise<Float32Array> {
    if (start === end) return new Float32Array(0);
    const codes = unit.part(start, end);
    const values = codes.values([end - start], 'f32');
    try {
      return await this.#read(values, 0, end - start);
    } finally {
      values.dispose();
      codes.dispose();
    }
  }

  async #read(tensor: Tensor, start: number, count: number): Promise<Float32Array> {
    if (count === 0) return new Float32Array(0);
    const part = unscoped(() => tensor.narrow(start, count));
    try {
      const bytes = await part.device.backend.read(part.handle, part.byteOffset, part.byteLength);
      return Float32Array.from(decode(bytes, [count], part.dtype).data);
    } finally {
      part.dispose();
    }
  }
}

/** Whether this rank, and so every rank, has all of a unit's state of a kind. */
function isWhole({ options }: UnitState, kind: StateKind): boolean {
  return kind === GRADIENT ? options.stage < 2 : options.stage === 0;
}

function stateOf(unit: UnitState, kind: StateKind, placement: Placement): OptimizerState | undefined {
  return statesNamed(unit.states, kind).find((state) => state.covers(placement));
}

/** What a kind of state is read in, on every rank alike. */
function dtypeOf(unit: UnitState, kind: StateKind, placement: Placement): DType {
  if (kind === 'weights') return unit.master.dtype;
  if (kind === GRADIENT) return unit.options.gradientDtype;
  const { spec, tensor } = stateOf(unit, kind, placement)!;
  return spec.codes ? 'f32' : tensor.dtype;
}

function view(tensor: Tensor, range: Range, part: Range): Tensor {
  return tensor.narrow(part.start - range.start, part.end - part.start);
}

function intersection(range: Range, other: Range): Range {
  const start = Math.min(Math.max(range.start, other.start), other.end);
  return { start, end: Math.max(start, Math.min(range.end, other.end)) };
}

function assertKnown(word: string, known: readonly string[], code: string, what: string): void {
  if (known.includes(word)) return;
  const [guess] = nearest(word, known);
  const wayOut = guess ? `did you mean '${guess}'?` : `there are ${known.slice(0, 8).join(', ')}${known.length > 8 ? ', ...' : ''}`;
  throw new DeepSpeedError(code, `expected the name of ${what}, got '${word}'; ${wayOut}`);
}

function sizeError(name: string, expected: string, got: number): DeepSpeedError {
  return new DeepSpeedError('ERR_SHAPE', `[${name}] expected ${expected}, got ${got}`);
}
