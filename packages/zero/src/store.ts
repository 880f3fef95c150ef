import {
  type Communicator,
  DeepSpeedError,
  type Device,
  type FloatDType,
  type GradientTarget,
  type HostTensor,
  type Module,
  type Parameter,
  type ParameterStore,
  scope,
  type Tensor,
  unitsOf,
  WorldOfOne,
} from '@deepspeed-ts/core';
import { ParameterAccess } from './access.js';
import { type ExportContext, type ExportedTensor, exportTensors, exportUnits, type StateKind } from './export.js';
import { Gatherer } from './gatherer.js';
import { globalNorm } from './global-norm.js';
import { InitialWeights, type InitialWeightsOptions } from './initial-weights.js';
import { UnitLayout } from './layout.js';
import { castWeights, localState, type StatePart, type StateSource, takeOver, takeOverCodes } from './local-state.js';
import { hasState, type Optimizer, runStep, statesOf } from './optimizer.js';
import { readableNames } from './optimizer-state.js';
import { QuantizedUnit } from './quantized-unit.js';
import { Reducer } from './reducer.js';
import { UnitGroup } from './unit-group.js';
import { alignmentOf, partsOf } from './unit-parts.js';
import { type InitialValues, type Stage, UnitState, type UnitStateOptions } from './unit-state.js';

import { UnitUpdate } from './unit-update.js';

export interface ZeroStoreOptions<Options> extends InitialWeightsOptions {
  readonly device: Device;
  /** Default: a world of one. */
  readonly communicator?: Communicator;
  /** What is sharded: 0 nothing, 1 optimizer state, 2 also gradients, 3 also parameters. */
  readonly stage: Stage;
  readonly optimizer: Optimizer<Options>;
  /** Dtype of weights in forward and backward; default f32. Otherwise an f32 master copy is kept with the optimizer state. */
  readonly dtype?: FloatDType;
  /** Default f32. 'bf16' with bf16 weights: there is no other copy of them than these, which the optimizer updates and rounds to nearest. */
  readonly masterDtype?: 'f32' | 'bf16';
  /** Dtype of optimizer states, of those that do not choose their own; default f32. */
  readonly stateDtype?: 'f32' | 'bf16';
  /** Dtype that gradients are stored, reduced and accumulated in; default that of the weights. Sums are always taken in f32. */
  readonly gradientDtype?: FloatDType;
  /** Reduce gradients beside backward; default true. */
  readonly overlap?: boolean;
  /** Gather the next unit beside the current one at stage 3; default true. */
  readonly prefetch?: boolean;
}

export interface StepOptions<Options> {
  /** Options of the optimizer by parameter. Parameters that get one and the same object are updated together. */
  optionsOf(parameter: Parameter, name: string): Options;
  /** Gradients are scaled down to this global norm; 0: never. */
  readonly maxNorm?: number;
  /** What gradients are multiplied with before anything else: the inverse of the loss scale that backward began with. Default 1. */
  readonly gradScale?: number;
}

/**
 * ZeRO (Rajbhandari et al., arXiv:1910.02054): a parameter store whose stage says which model state every rank keeps whole and
 * which as one slice. Usable without any engine: `backward`, then `finishBackward()`, and `step()` when enough micro-batches came.
 * At a fixed number of ranks all stages compute the same bits.
 */
export class ZeroStore<Options> implements ParameterStore {
  readonly dtype: FloatDType;
  readonly gradientDtype: FloatDType;
  /** Of master weights; where it is `dtype`, there are no others than the weights themselves. */
  readonly masterDtype: FloatDType;
  readonly communicator: Communicator;
  readonly device: Device;
  /** At stage 3 all ranks use the same parameters in the same order. */
  readonly together: Communicator | undefined;
  readonly #optimizer: Optimizer<Options>;
  /** In the order of the model. */
  readonly #parts: (UnitState | QuantizedUnit)[];
  /** Of them, those that hold weights as they are. */
  readonly #units: UnitState[];
  readonly #homes = new Map<Parameter, { readonly part: UnitState | QuantizedUnit; readonly group: UnitGroup }>();
  readonly #attached = new Set<Parameter>();
  readonly #initial: InitialWeights;
  readonly #gatherer: Gatherer;
  readonly #reducer: Reducer;
  #steps = 0;
  /** Whether the last step is counted already though it may turn out to have changed nothing. */
  #unsettled = false;
  #gradNorm: Tensor | undefined;

  constructor(model: Module, options: ZeroStoreOptions<Options>) {
    const { device, stage, optimizer, dtype = 'f32', gradientDtype = dtype, communicator = new WorldOfOne() } = options;
    this.dtype = dtype;
    this.gradientDtype = gradientDtype;
    this.communicator = communicator;
    this.device = device;
    this.together = stage === 3 ? communicator : undefined;
    this.#optimizer = optimizer;
    const { masterDtype = 'f32', stateDtype = 'f32' } = options;
    if (masterDtype !== 'f32' && masterDtype !== dtype)
      throw new DeepSpeedError('ERR_DTYPE', `[ZeroStore] master weights in ${masterDtype} need weights in ${masterDtype}, got ${dtype}`);
    this.masterDtype = masterDtype;
    const { rank } = communicator;
    const alignment = 'alignment' in optimizer ? optimizer.alignment : 1;
    const unitOptions = { device, rank, stage, dtype, gradientDtype, masterDtype, stateDtype, optimizer: optimizer as Optimizer<never> };
    this.#initial = new InitialWeights(options);
    this.#parts = [];
    this.#units = [];
    const groups: UnitGroup[] = [];
    try {
      const layouts = unitsOf(model).map((unit) =>
        partsOf(unit).map((part) => new UnitLayout(part, communicator.size, alignmentOf(part.keeping, alignment))),
      );
      // First of all: a model that is held elsewhere stays there, untouched.
      for (const { placements } of layouts.flat()) for (const { parameter } of placements) this.#attach(parameter);
      for (const unit of layouts) {
        const parts = unit.map((layout) => this.#open(layout, unitOptions));
        const group = new UnitGroup(groups.length, parts);
        groups.push(group);
        for (const part of parts) for (const { parameter } of part.layout.placements) this.#homes.set(parameter, { part, group });
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.#gatherer = new Gatherer(groups, { communicator, sharded: stage === 3, prefetch: options.prefetch ?? true });
    this.#reducer = new Reducer(this.#units, communicator, options.overlap ?? true);
  }

  /** Optimizer steps so far, those that `finishStep` found to have changed nothing left out. */
  get steps(): number {
    return this.#steps;
  }

  /** f32 [1]: the global norm of the gradients of the last step, before clipping. Not finite: that step changed nothing. */
  get gradNorm(): Tensor | undefined {
    return this.#gradNorm;
  }

  /** How the units lie in memory, in the order in which they are exported. */
  get layouts(): UnitLayout[] {
    return this.#parts.map(({ layout }) => layout);
  }

  /** Of the optimizer, as they are stored. */
  get stateNames(): readonly string[] {
    return statesOf(this.#optimizer as Optimizer<never>).map(({ name }) => name);
  }

  /** What the weights of a unit are exported in: frozen ones have no other than those that they are used in, and of codes the values in f32 tell all. */
  weightDtype({ keeping }: UnitLayout): FloatDType {
    return keeping === 'trained' ? this.masterDtype : keeping === 'frozen' ? this.dtype : 'f32';
  }

  /** The kinds of state that can be exported: as they are stored, but codes under the name of what they stand for. */
  get readableStates(): readonly string[] {
    return readableNames(statesOf(this.#optimizer as Optimizer<never>));
  }

  /** How many values of a kind of state, or weights, a parameter of this name and so many elements has: 0 where the optimizer keeps none for it. */
  stateSize(kind: StateKind, name: string, parameter: Parameter): number {
    const spec = statesOf(this.#optimizer as Optimizer<never>).find((spec) => spec.name === kind);
    if (spec && !hasState(this.#optimizer as Optimizer<never>, kind, name, parameter)) return 0;
    return Math.ceil(parameter.numel / (spec?.every ?? 1));
  }

  /**
   * Whether backward passes reduce their gradients over ranks; true in the beginning. False adds them up on each rank, whole at every stage,
   * until a pass is reduced again: the sum is then. Every rank sets it alike, between passes.
   */
  get reduces(): boolean {
    return this.#reducer.reduces;
  }

  set reduces(on: boolean) {
    this.#reducer.reduces = on;
  }

  /** Whether there are gradients that have not been reduced. */
  get hasUnreduced(): boolean {
    return this.#reducer.hasUnreduced;
  }

  /** State of single parameters, to look at and to change. */
  get access(): ParameterAccess {
    return new ParameterAccess(this.#exported);
  }

  /** Lets go of the weights that stage 3 has gathered; they are gathered again when they are used. */
  releaseGathered(): void {
    this.#gatherer.releaseAll();
  }

  use(parameter: Parameter): Tensor {
    const { part, group } = this.#homes.get(parameter)!;
    this.#gatherer.ensure(group);
    return part.use(parameter);
  }

  done(parameter: Parameter): void {
    this.#homes.get(parameter)!.part.done(parameter);
  }

  gradientTarget(parameter: Parameter): GradientTarget {
    return this.#homes.get(parameter)!.part.gradientTarget(parameter);
  }

  onGradient(parameter: Parameter): void {
    this.#reducer.parameterDone(this.#homes.get(parameter)!.part as UnitState);
  }

  /** Call after every backward pass, on every rank: completes the reduction of its gradients, unless `reduces` is off. */
  finishBackward(): void {
    this.#reducer.finish();
  }

  /**
   * Clips by global norm, updates the weights from the accumulated gradients, and drops these. Never waits for the device: where the norm
   * is not finite, the device leaves weights and optimizer state as they are, and `finishStep` tells.
   */
  step({ optionsOf, maxNorm = 0, gradScale = 1 }: StepOptions<Options>): void {
    if (this.#reducer.hasUnreduced) this.#reducer.finish(true);
    const trained = this.#units.filter(({ gradient }) => gradient);
    if (trained.length === 0)
      throw new DeepSpeedError(
        'ERR_NO_GRADIENT',
        `[step] rank ${this.communicator.rank} has no gradients: run backward and finishBackward first`,
      );
    this.#gatherer.releaseAll();
    this.#steps++;
    this.#unsettled = true;
    this.#gradNorm?.dispose();
    const { norm, coefficient } = globalNorm(trained, this.communicator, this.device, maxNorm, gradScale);
    this.#gradNorm = norm.keep();
    const { communicator } = this;
    const done = (update: UnitUpdate<Options>) => {
      update.finish();
      this.#share(update.unit);
      this.#gatherer.gatherAhead(this.#homes.get(update.layout.placements[0]!.parameter)!.group);
    };
    try {
      scope(() => {
        const units = trained.map((unit) => {
          // What still reads or writes these weights comes first.
          unit.wait();
          return new UnitUpdate(unit, ({ parameter, name }) => optionsOf(parameter, name));
        });
        runStep(this.#optimizer, { units, communicator, device: this.device, coefficient, t: this.#steps, done });
      });
    } finally {
      coefficient.dispose();
    }
  }

  /**
   * Waits for the gradient norm of the last step. Where it is not finite the step is not counted, so that bias corrections go on from the
   * last step that was applied. Who never calls it counts every step as applied.
   */
  async finishStep(): Promise<number> {
    if (!this.#gradNorm)
      throw new DeepSpeedError('ERR_NO_GRADIENT', `[finishStep] rank ${this.communicator.rank} has not taken a step yet`);
    let norm = Number.NaN;
    try {
      norm = await this.#gradNorm.item();
      return norm;
    } finally {
      // A device that reports an error has skipped what came after it, the update of the weights included.
      if (this.#unsettled && !Number.isFinite(norm)) this.#steps--;
      this.#unsettled = false;
    }
  }

  /**
   * Drops accumulated gradients, also those of a backward pass that threw before `finishBackward`: call it then, for a gradient that is
   * there in part would be added to by the next pass.
   */
  zeroGrad(): void {
    this.#reducer.abandon();
    for (const unit of this.#units) unit.dropGradients();
  }

  /**
   * Whole f32 tensors by name, one parameter at a time, in the same order on every rank; every rank must run through all of it. `weights`
   * are master weights, other kinds the optimizer's states. No rank ever holds more than one unit.
   */
  export(kind: StateKind = 'weights'): AsyncGenerator<readonly [name: string, value: HostTensor]> {
    return exportTensors(this.#exported, kind);
  }

  /** As `export`, to be read as bytes, of the units that this rank wants. Every rank must run through all of it, whatever it wants. */
  exportUnits(kind: StateKind, wanted: (unit: UnitLayout) => boolean): AsyncGenerator<ExportedTensor> {
    return exportUnits(this.#exported, kind, wanted);
  }

  /** This rank's share of weights, optimizer states and accumulated gradients, of all that is not kept as codes: all ranks together have everything once. Read them before the next step. */
  localState(): Generator<StatePart> {
    return localState(this.#units);
  }

  /**
   * Takes over weights and, given `steps`, optimizer states, accumulated gradients and the number of steps. Each rank reads what it
   * owns; every rank calls it, between passes. What the source lacks stays as it is among weights and becomes zero elsewhere.
   */
  async loadState(source: StateSource, { steps }: { steps?: number | undefined } = {}): Promise<void> {
    this.zeroGrad();
    this.#gatherer.releaseAll();
    for (const part of this.#parts) if (part instanceof QuantizedUnit) await takeOverCodes(part, source);
    for (const unit of this.#units) {
      await takeOver(unit, source, steps !== undefined);
      scope(() => {
        castWeights(unit);
        this.#share(unit);
      });
      // Host bytes that are on their way pile up otherwise.
      await this.device.backend.synchronize();
    }
    this.#steps = steps ?? this.#steps;
  }

  /**
   * Reads the weights that are to come from the `weights` of the options: each rank what it owns, with no more beside it than a few blocks.
   * Every rank calls it once, before the first pass. @throws what the source throws; the store can only be disposed then
   */
  async loadWeights(): Promise<void> {
    for (const unit of await this.#initial.read(this.#parts)) {
      scope(() => {
        castWeights(unit);
        this.#share(unit);
      });
    }
  }

  /** Gives everything back, also when a pass has failed halfway. The model may get another store then. */
  dispose(): void {
    this.#reducer?.settle();
    for (const part of this.#parts) part.dispose();
    for (const parameter of this.#attached) parameter.attach(undefined);
    this.#attached.clear();
    this.#gradNorm?.dispose();
    this.#gradNorm = undefined;
  }

  get #exported(): ExportContext {
    return { units: this.#parts, communicator: this.communicator, device: this.device, stateNames: this.readableStates };
  }

  #open(layout: UnitLayout, options: UnitStateOptions): UnitState | QuantizedUnit {
    const initial: InitialValues = (...part) => this.#initial.write(...part);
    if (layout.keeping !== 'trained' && layout.keeping !== 'frozen') {
      const part = new QuantizedUnit(this.#parts.length, layout, options, initial);
      this.#parts.push(part);
      return part;
    }
    const unit = new UnitState(this.#units.length, layout, options, initial);
    this.#parts.push(unit);
    this.#units.push(unit);
    return unit;
  }

  #attach(parameter: Parameter): void {
    parameter.attach(this);
    this.#attached.add(parameter);
  }

  /** Stages 1 and 2: everyone gets everyone's updated slice, beside the update of the next unit. */
  #share(unit: UnitState): void {
    const { stage } = unit.options;
    if (stage === 0 || stage === 3) return;
    unit.pending = this.communicator.allGather(unit.values, unit.ownedValues(), `share ${unit.index} ${unit.layout.name}`);
  }
}
