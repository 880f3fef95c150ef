import { describePickled, type PickleValue, TorchTensor } from '@deepspeed-ts/core';
import { Fields, numberOf } from './fields.js';

/** A state dict of one of PyTorch's optimizers. */
export interface OptimizerStateDict {
  /** State by number of the parameter. */
  stateOf(index: number): ReadonlyMap<string, PickleValue>;
  readonly groups: readonly OptimizerGroup[];
}

export interface OptimizerGroup {
  /** Numbers of its parameters, which with ZeRO are flat vectors. */
  readonly params: readonly number[];
  readonly settings: ReadonlyMap<string, PickleValue>;
}

export function optimizerStateDict(fields: Fields): OptimizerStateDict {
  const state = fields.fields('state');
  const groups = fields.list('param_groups').map((value): OptimizerGroup => {
    const group = Fields.of(fields.path, value, `${fields.where}.param_groups`);
    return { params: group.list('params') as readonly number[], settings: new Map(group.named()) };
  });
  const stateOf = (index: number) => {
    const found = state.dictionary.get(index);
    return found instanceof Map
      ? new Map(Fields.of(fields.path, found, `${state.where}.${index}`).named())
      : new Map<string, PickleValue>();
  };
  return { stateOf, groups };
}

/** Tensors of a state that have an element for each of the parameter's, and the number of steps. */
export function tensorsOfState(
  state: ReadonlyMap<string, PickleValue>,
  numel: number,
  fields: Fields,
): { tensors: ReadonlyMap<string, TorchTensor>; steps: number | undefined } {
  const tensors = new Map<string, TorchTensor>();
  for (const [kind, value] of state) {
    if (kind === 'step' || !(value instanceof TorchTensor)) continue;
    if (value.numel === numel) tensors.set(kind, value);
    else if (value.numel !== 1) throw fields.wrong(`expected ${kind} to have ${numel} elements, got ${describePickled(value)}`);
  }
  return { tensors, steps: numberOf(state.get('step')) };
}
