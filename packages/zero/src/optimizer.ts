import type { Communicator, Device, DType, Parameter, Tensor } from '@deepspeed-ts/core';
import type { UnitUpdate } from './unit-update.js';

/** What one optimizer call works on: equal ranges of a unit. All are views; `master` and `states` are updated in place. */
export interface OptimizerRange {
  readonly gradient: Tensor;
  /** f32, or bf16 where master weights are kept so. */
  readonly master: Tensor;
  /** f32 or bf16, one for each of `stateNames`. */
  readonly states: readonly Tensor[];
  /** The low-precision copy of `master`, where there is one. */
  readonly low?: Tensor;
  /** f32 [1]: what gradients are multiplied with first. NaN: leave everything as it is. */
  readonly coefficient: Tensor;
}

/** Settings that every optimizer has, and those that a schedule may move where there are any. */
export interface OptimizerOptions {
  readonly lr: number;
  readonly weightDecay: number;
  readonly betas?: readonly [number, number];
}

/**
 * An elementwise optimizer over flat ranges: all that most optimizers need to be. `step` must do the same to an element wherever it lies
 * in its range: ranges are cut differently at each stage. States begin with zeros.
 */
export interface FlatOptimizer<Options> {
  readonly name: string;
  readonly stateNames: readonly string[];
  /** `t` counts the steps that were applied, from 1. */
  step(range: OptimizerRange, options: Options, t: number): void;
}

/** A kind of state that an optimizer keeps of parameters. It begins with zeros. */
export interface StateSpec {
  readonly name: string;
  /** Default: what the store keeps optimizer states in, f32 or bf16. */
  readonly dtype?: DType;
  /** Elements of a parameter that share one value; default 1. A multiple of it must divide the optimizer's `alignment`. */
  readonly every?: number;
  /** What codes stand for: another state's name, in which the scales are, and whether there is a sign. They are exported as `of`. */
  readonly codes?: { readonly of: string; readonly scales: string; readonly signed: boolean };
}

/** An optimizer that looks at whole parameters: norms, matrices, blocks. Every rank calls it with the units that are trained. */
export interface ParameterOptimizer<Options> {
  readonly name: string;
  readonly states: readonly StateSpec[];
  /** Names of the states that a parameter has; default all. The rest takes no memory. */
  statesOf?(name: string, parameter: Parameter): readonly string[];
  /** Parameters begin, and slices of ranks are cut, at multiples of so many elements; default: wherever they come. */
  readonly alignment?: number;
  step(step: OptimizerStep<Options>): void;
}

export type Optimizer<Options> = FlatOptimizer<Options> | ParameterOptimizer<Options>;

/** One step of an optimizer over all that is trained. */
export interface OptimizerStep<Options> {
  readonly units: readonly UnitUpdate<Options>[];
  readonly communicator: Communicator;
  readonly device: Device;
  /** f32 [1]: what gradients are multiplied with first. NaN: leave everything as it is. */
  readonly coefficient: Tensor;
  /** Counts the steps that were applied, from 1. */
  readonly t: number;
  /** To be called for each unit when its weights are updated: drops its gradient and begins to share the weights. */
  done(unit: UnitUpdate<Options>): void;
}

/** The kinds of state of either sort of optimizer. */
export function statesOf(optimizer: Optimizer<never>): readonly StateSpec[] {
  return 'stateNames' in optimizer ? optimizer.stateNames.map((name) => ({ name })) : optimizer.states;
}

/** Whether a parameter has a kind of state. */
export function hasState(optimizer: Optimizer<never>, state: string, name: string, parameter: Parameter): boolean {
  return !('statesOf' in optimizer) || (optimizer.statesOf?.(name, parameter).includes(state) ?? true);
}

/** Runs either sort of optimizer. */
export function runStep<Options>(optimizer: Optimizer<Options>, step: OptimizerStep<Options>): void {
  if (!('stateNames' in optimizer)) {
    optimizer.step(step);
    return;
  }
  for (const unit of step.units) {
    for (const { key, start, end } of unit.segments()) {
      optimizer.step(unit.range(start, end, optimizer.stateNames, step.coefficient), key, step.t);
    }
    step.done(unit);
  }
}
