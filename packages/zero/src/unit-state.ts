import {
  bytesOf,
  type Communicator,
  cast,
  DeepSpeedError,
  type Device,
  empty,
  type FloatDType,
  fill,
  launch,
  type Parameter,
  scope,
  Tensor,
  unscoped,
  type Work,
} from '@deepspeed-ts/core';
import type { Placement, Range, UnitLayout } from './layout.js';
import { hasState, type Optimizer, statesOf } from './optimizer.js';
import { OptimizerState } from './optimizer-state.js';
import type { Gatherable } from './unit-group.js';

export type Stage = 0 | 1 | 2 | 3;

export interface UnitStateOptions {
  readonly device: Device;
  readonly rank: number;
  readonly stage: Stage;
  readonly dtype: FloatDType;
  readonly gradientDtype: FloatDType;
  /** What master weights are kept in: f32, or bf16 where weights are bf16 too. */
  readonly masterDtype: FloatDType;
  /** What optimizer states are kept in that name no dtype themselves. */
  readonly stateDtype: FloatDType;
  readonly optimizer: Optimizer<never>;
}

/** Writes what a parameter begins with into `target`: its elements from `start` on. */
export type InitialValues = (name: string, parameter: Parameter, target: Tensor, start: number) => void;

/**
 * What one rank holds of one unit. The stage decides with three switches what is whole and what is the rank's slice:
 * optimizer state is a slice from stage 1, gradients from stage 2, parameters at stage 3. Of a frozen unit there are weights alone.
 */
export class UnitState implements Gatherable {
  /** The weights in the compute dtype: whole, or this rank's slice at stage 3. */
  readonly values: Tensor;
  /** The elements that `values` holds. */
  readonly kept: Range;
  /** The weights that the optimizer updates; the values themselves where both are of one dtype. Over `owned`. */
  readonly master: Tensor;
  /** Optimizer state of `owned`. */
  readonly states: readonly OptimizerState[];
  /** The elements that this rank's optimizer updates. */
  readonly owned: Range;
  /** The whole weights while they are gathered (stage 3). */
  gathered: Tensor | undefined;
  /** The collective that `values` or `gathered` waits for before it may be read. */
  pending: Work | undefined;
  /** How many borrowers the weights have now. */
  users = 0;
  /** Reduced gradients accumulated since the last step: whole up to stage 1, else this rank's slice. */
  gradient: Tensor | undefined;
  /** The local gradient of the running micro-batch, whole, until it is reduced. */
  local: Tensor | undefined;
  readonly #views = new Map<Parameter, Tensor>();
  readonly #written = new Set<Parameter>();

  constructor(
    readonly index: number,
    readonly layout: UnitLayout,
    readonly options: UnitStateOptions,
    initial: InitialValues,
  ) {
    const { device, rank, stage, dtype, masterDtype, stateDtype, optimizer } = options;
    const kept = stage === 3 ? layout.sliceOf(rank) : layout.whole;
    this.kept = kept;
    this.owned = stage === 0 ? layout.whole : layout.sliceOf(rank);
    // A scope, so that a constructor that fails, for want of memory say, leaves nothing behind.
    const { values, master, states, tensors } = scope(() => {
      const values = empty(device, [lengthOf(kept)], dtype, { kind: 'parameters', shared: true });
      const trained = layout.keeping === 'trained';
      const one = dtype === masterDtype || !trained;
      const master = one ? this.#part(values, kept, this.owned) : empty(device, [lengthOf(this.owned)], masterDtype, { kind: 'optimizer' });
      if (one) this.#initialise(values, kept, initial);
      else this.#initialiseBoth(values, kept, master, initial);
      const states = (trained ? statesOf(optimizer) : []).map((spec) => {
        const covers = ({ name, parameter }: Placement) => hasState(optimizer, spec.name, name, parameter);
        return new OptimizerState(device, spec, layout, this.owned, stateDtype, covers);
      });
      return { values, master, states, tensors: states.map(({ tensor }) => tensor) };
    });
    this.values = values.keep();
    this.master = master.keep();
    for (const tensor of tensors) tensor.keep();
    this.states = states;
  }

  /** The weight of a parameter, once gathered: borrowed until `done`. */
  use(parameter: Parameter): Tensor {
    this.users++;
    return this.#view(parameter);
  }

  done(): void {
    this.users--;
  }

  /** The parameter's shape over the flat buffer. */
  #view(parameter: Parameter): Tensor {
    let view = this.#views.get(parameter);
    if (!view) {
      const { offset } = this.layout.placementOf(parameter);
      const { buffer, dtype, byteOffset } = this.gathered ?? this.values;
      view = new Tensor(buffer.retain(), parameter.shape, dtype, byteOffset + offset * bytesOf(dtype)).keep();
      this.#views.set(parameter, view);
    }
    return view;
  }

  get isWhole(): boolean {
    return this.options.stage < 3 || this.gathered !== undefined;
  }

  get isGathered(): boolean {
    return this.gathered !== undefined;
  }

  gather(communicator: Communicator): void {
    if (this.gathered) return;
    const { device, dtype } = this.options;
    this.gathered = unscoped(() => empty(device, [this.layout.padded], dtype, { kind: 'parameters', shared: true }));
    this.pending = communicator.allGather(this.gathered, this.values, `gather ${this.index} ${this.layout.name}`);
  }

  wait(): void {
    this.pending?.wait();
    this.pending = undefined;
  }

  release(): void {
    this.wait();
    for (const view of this.#views.values()) view.dispose();
    this.#views.clear();
    this.gathered?.dispose();
    this.gathered = undefined;
  }

  /** The part of the values that the optimizer writes its low-precision copy to. A view of the caller's scope. */
  ownedValues(): Tensor {
    return this.#part(this.values, this.kept, this.owned);
  }

  /** The part of the accumulated gradient that the optimizer reads. A view of the caller's scope. */
  ownedGradient(): Tensor {
    const kept = this.options.stage < 2 ? this.layout.whole : this.layout.sliceOf(this.options.rank);
    return this.#part(this.gradient!, kept, this.owned);
  }

  /** Where the gradient of a parameter goes in this micro-batch, and whether something is there already. */
  gradientTarget(parameter: Parameter): { tensor: Tensor; accumulate: 0 | 1 } {
    const { offset, name } = this.layout.placementOf(parameter);
    if (this.layout.keeping !== 'trained') throw frozenError(name);
    const local = this.localGradient();
    const accumulate = this.#written.has(parameter) ? 1 : 0;
    this.#written.add(parameter);
    // Belongs to the scope of the op that writes it.
    return {
      tensor: new Tensor(local.buffer.retain(), parameter.shape, local.dtype, local.byteOffset + offset * bytesOf(local.dtype)),
      accumulate,
    };
  }

  /** The flat local gradient; made on first use. */
  localGradient(): Tensor {
    this.local ??= this.newGradient(this.layout.padded);
    return this.local;
  }

  newGradient(elements: number): Tensor {
    return empty(this.options.device, [elements], this.options.gradientDtype, { kind: 'gradients', shared: true }).keep();
  }

  /** Zeros what no op wrote, padding included, so that the flat gradient may be reduced. */
  completeLocal(): Tensor {
    const local = this.localGradient();
    for (const { parameter, offset, numel } of this.layout.placements) {
      if (!this.#written.has(parameter)) zero(local, offset, offset + numel);
    }
    for (const { start, end } of this.layout.gaps()) zero(local, start, end);
    this.#written.clear();
    return local;
  }

  /** Drops the gradients: what has been accumulated, and what a pass has left that failed halfway. */
  dropGradients(): void {
    this.gradient?.dispose();
    this.gradient = undefined;
    this.local?.dispose();
    this.local = undefined;
    this.#written.clear();
  }

  dispose(): void {
    this.release();
    this.dropGradients();
    for (const tensor of [this.values, this.master, ...this.states]) tensor.dispose();
  }

  #part(tensor: Tensor, held: Range, wanted: Range): Tensor {
    return tensor.narrow(wanted.start - held.start, lengthOf(wanted));
  }

  /** Writes one parameter at a time, and of it only what lies in the range: no rank ever holds the whole model. */
  #initialise(target: Tensor, range: Range, initial: InitialValues): void {
    for (const gap of this.layout.gaps()) {
      const [start, end] = [Math.max(gap.start, range.start), Math.min(gap.end, range.end)];
      if (start < end) zero(target, start - range.start, end - range.start);
    }
    for (const { key, start, end } of this.layout.segments(range, (placement) => placement)) {
      const part = target.narrow(start - range.start, end - start);
      initial(key.name, key.parameter, part, start - key.offset);
      part.dispose();
    }
  }

  /** Master weights, and low-precision weights from the same values. */
  #initialiseBoth(values: Tensor, kept: Range, master: Tensor, initial: InitialValues): void {
    this.#initialise(master, this.owned, initial);
    const same = kept.start === this.owned.start && kept.end === this.owned.end;
    if (same) launch(cast, [master], [values], {});
    else this.#initialise(values, kept, initial);
  }
}

/** What is frozen when a store takes it has room for weights alone. */
export function frozenError(name: string): DeepSpeedError {
  const text = `[backward] ${name} was frozen when the store took it, so there is no gradient and no optimizer state for it`;
  return new DeepSpeedError('ERR_FROZEN', `${text}; set requiresGrad = true before the model is given to initialize()`);
}

function zero(flat: Tensor, start: number, end: number): void {
  if (start === end) return;
  const part = flat.narrow(start, end - start);
  fill(part, 0);
  part.dispose();
}

function lengthOf({ start, end }: Range): number {
  return end - start;
}
