import { openTorchFile, PickleObject, type PickleValue, type TorchFile, type TorchTensor } from '@deepspeed-ts/core';
import type { LossScalerState } from '../precision/index.js';
import { DeepSpeedCheckpointError } from './error.js';
import { Fields, numberOf } from './fields.js';
import { locate } from './locate.js';
import { ModelStates } from './model-states.js';
import { countOf, type Piece, type Pieces, wholeOf, zerosOf } from './pieces.js';
import { readStage0 } from './stage-0.js';
import { readStage12 } from './stage-1-2.js';
import { partitionOf, readStage3 } from './stage-3.js';
import type { GroupState, ParameterState, TrainedState } from './state.js';
import { readUniversal } from './universal.js';

/** Told of each file before it is read. */
export type OnFile = (path: string, index: number, count: number) => void;

export interface OpenOptions {
  /** Default: what `latest` names. */
  readonly tag?: string | undefined;
  /** Compare checksums of all files; default true. */
  readonly verify?: boolean;
  readonly onFile?: OnFile | undefined;
}

/** A checkpoint that DeepSpeed wrote, by parameter. Only structure is read until a parameter is asked for. */
export class DeepSpeedCheckpoint {
  readonly path: string;
  readonly tag: string;
  readonly stage: number;
  readonly worldSize: number;
  /** Trained and frozen ones, in the order of the model; tied ones once. */
  readonly parameters: readonly ParameterState[];
  /** Kinds of optimizer state. */
  readonly stateNames: readonly string[];
  readonly groups: readonly GroupState[];
  /** Optimizer steps that were applied. */
  readonly steps: number;
  /** Other names of parameters. */
  readonly aliases: ReadonlyMap<string, string>;
  readonly buffers: ReadonlyMap<string, TorchTensor>;
  readonly model: ModelStates;
  readonly lossScaler: LossScalerState | undefined;
  /** Frozen parameters whose weights were left out on purpose. */
  readonly excluded: string[] = [];
  /** What is odd about it but can be read. */
  readonly warnings: string[] = [];
  readonly #files: TorchFile[] = [];

  constructor(directory: string, { tag, verify = true, onFile }: OpenOptions = {}) {
    const located = locate(directory, tag);
    const { path, modelStates, optimizerStates, universal } = located;
    this.path = path;
    this.tag = located.tag;
    const count = universal ? 1 : 1 + optimizerStates.length;
    const open = (file: string) => {
      const index = this.#files.length;
      onFile?.(file, index, Math.max(count, index + 1));
      const opened = openTorchFile(file);
      this.#files.push(opened);
      if (verify) opened.verify();
      return opened;
    };
    try {
      this.model = new ModelStates(open(modelStates[0]!));
      const optimizers = universal ? [] : optimizerStates.map(open);
      this.worldSize = universal ? this.model.worldSize : optimizers.length || this.model.worldSize;
      const trained = universal ? readUniversal(universal, this.model, open) : this.#trained(optimizers);
      this.stage = universal ? 0 : optimizers.length === 0 ? 0 : stageOf(optimizers[0]!);
      this.aliases = tied(this.model, trained);
      this.parameters = this.#all(trained, () => modelStates.slice(1).map((file) => new ModelStates(open(file))));
      this.buffers = this.#buffers();
      const kinds = [...new Set(this.parameters.flatMap(({ states }) => [...states.keys()]))];
      this.stateNames = kinds.map((kind) => nameOfState(kind, kinds));
      this.groups = trained.groups;
      this.steps = this.#stepsOf(trained);
      this.lossScaler = lossScalerOf(trained.lossScaler, this.model);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get globalSteps(): number {
    return this.model.fields.integer('global_steps', this.steps);
  }

  get skippedSteps(): number {
    return this.model.fields.integer('skipped_steps', 0);
  }

  close(): void {
    for (const file of this.#files) file.close();
    this.#files.length = 0;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #trained(optimizers: readonly TorchFile[]): TrainedState {
    if (optimizers.length === 0) {
      if (this.model.shapes)
        throw new DeepSpeedCheckpointError(this.path, 'there is no *_optim_states.pt, where ZeRO keeps the f32 weights');
      return readStage0(this.model);
    }
    const expected = worldSizeOf(optimizers[0]!) ?? this.model.worldSize;
    if (expected !== optimizers.length) {
      throw new DeepSpeedCheckpointError(
        this.path,
        `${expected} ranks have saved this checkpoint, there are *_optim_states.pt of ${optimizers.length}: some are missing, or left over from another run`,
      );
    }
    return stageOf(optimizers[0]!) === 3 ? readStage3(this.model, optimizers) : readStage12(this.model, optimizers);
  }

  /** Trained parameters and those that are not, in the order of the model. */
  #all({ parameters }: TrainedState, openOthers: () => ModelStates[]): ParameterState[] {
    const { module, buffers, frozenShapes } = this.model;
    let ranks: ModelStates[] | undefined;
    const frozen = (name: string, shape: readonly number[]): ParameterState => {
      const own = this.model.frozenFragment(name);
      if (this.stage !== 3) return { name, shape, weights: wholeOf(own ?? module.get(name)!), states: new Map() };
      ranks ??= [this.model, ...openOthers()];
      const weights = partitionOf(shape, ranks.length).map(({ rank, count }): Piece => {
        const fragment = ranks![rank]!.frozenFragment(name);
        if (!fragment || fragment.numel < count)
          throw ranks![rank]!.fields.wrong(`frozen_param_fragments: expected ${count} elements of ${name}`);
        return { tensor: fragment, start: 0, count };
      });
      return { name, shape, weights, states: new Map() };
    };
    const names = new Set([...module.keys(), ...parameters.keys(), ...frozenShapes.keys()]);
    const all: ParameterState[] = [];
    for (const name of names) {
      if (this.aliases.has(name) || (buffers.has(name) && !parameters.has(name))) continue;
      const shape = frozenShapes.get(name) ?? module.get(name)?.shape;
      // At stage 3 a weight that is nowhere else has no elements among the model's.
      if (this.stage === 3 && !parameters.has(name) && !frozenShapes.has(name)) {
        this.excluded.push(name);
        continue;
      }
      const parameter = parameters.get(name) ?? frozen(name, shape!);
      const numel = parameter.shape.reduce((n, size) => n * size, 1);
      if (countOf(parameter.weights) !== numel)
        throw this.model.fields.wrong(`${name}: expected ${numel} elements, found ${countOf(parameter.weights)}`);
      all.push(parameter);
    }
    return all;
  }

  #buffers(): Map<string, TorchTensor> {
    const { module, buffers } = this.model;
    return new Map([...buffers].flatMap((name) => (module.has(name) ? [[name, module.get(name)!] as const] : [])));
  }

  #stepsOf({ steps }: TrainedState): number {
    const most = steps.reduce((a, b) => Math.max(a, b), -1);
    if (steps.some((count) => count !== most))
      this.warnings.push(`parameters have been updated ${Math.min(...steps)} to ${most} times; ${most} is taken for all`);
    return most >= 0 ? most : this.model.fields.integer('global_steps', 0) - this.model.fields.integer('skipped_steps', 0);
  }
}

/** The states of a parameter, with zeros where it has none. */
export function statePieces({ states, weights }: ParameterState, name: string): Pieces {
  const kind = [...states.keys()].find((kind) => nameOfState(kind, [...states.keys()]) === name);
  return (kind === undefined ? undefined : states.get(kind)) ?? zerosOf(countOf(weights));
}

/** As PyTorch calls it: DeepSpeed's Adagrad on the CPU has the sum of squares under the name that Adam gives to their mean. */
function nameOfState(kind: string, kinds: readonly string[]): string {
  return kind === 'exp_avg_sq' && kinds.length === 1 ? 'sum' : kind;
}

/** Other names of parameters, with the names that they are trained under. */
function tied({ aliases }: ModelStates, { parameters }: TrainedState): Map<string, string> {
  return new Map([...aliases].map(([alias, name]) => (parameters.has(alias) && !parameters.has(name) ? [name, alias] : [alias, name])));
}

function stageOf(file: TorchFile): number {
  const state = Fields.of(file.path, file.root).fields('optimizer_state_dict');
  return numberOf(state.get('zero_stage')) ?? (state.has('fp32_flat_groups') ? 3 : 1);
}

/** A number, or one for each group. */
function worldSizeOf(file: TorchFile): number | undefined {
  const count = Fields.of(file.path, file.root).fields('optimizer_state_dict').get('partition_count');
  return numberOf(Array.isArray(count) ? (count[0] as PickleValue) : count);
}

function lossScalerOf(value: PickleValue | undefined, model: ModelStates): LossScalerState | undefined {
  const fields = value instanceof PickleObject ? value.attributes : value instanceof Map ? value : undefined;
  const read = (key: string) => numberOf(fields?.get(key));
  const [scale, iteration] = [read('cur_scale'), read('cur_iter')];
  if (scale === undefined || iteration === undefined) return undefined;
  const hysteresis = read('cur_hysteresis') ?? numberOf(model.config.optionalFields('fp16')?.get('hysteresis')) ?? 2;
  return {
    cur_scale: scale,
    cur_iter: iteration,
    last_overflow_iter: read('last_overflow_iter') ?? -1,
    cur_hysteresis: Math.max(1, hysteresis),
  };
}
