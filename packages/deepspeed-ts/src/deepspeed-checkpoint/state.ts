import type { PickleValue } from '@deepspeed-ts/core';
import type { Pieces } from './pieces.js';

/** A parameter as files have it. */
export interface ParameterState {
  readonly name: string;
  readonly shape: readonly number[];
  readonly weights: Pieces;
  /** By kind, such as exp_avg; empty for one that is not trained. */
  readonly states: ReadonlyMap<string, Pieces>;
}

/** Settings of the optimizer for some parameters. */
export interface GroupState {
  readonly names: readonly string[];
  readonly settings: ReadonlyMap<string, PickleValue>;
}

/** What the optimizer has of all trained parameters. */
export interface TrainedState {
  readonly parameters: ReadonlyMap<string, ParameterState>;
  readonly groups: readonly GroupState[];
  /** Optimizer steps that were applied; they may differ between parameters. */
  readonly steps: readonly number[];
  /** A pickled loss scaler, or a state dict that has its fields. */
  readonly lossScaler: PickleValue | undefined;
}
