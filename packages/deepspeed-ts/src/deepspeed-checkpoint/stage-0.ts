import { type PickleValue, TorchTensor } from '@deepspeed-ts/core';
import { type Fields, numberOf, numelOfShape } from './fields.js';
import type { ModelStates } from './model-states.js';
import { type OptimizerStateDict, optimizerStateDict, tensorsOfState } from './optimizer-states.js';
import { type Pieces, sliceOf, wholeOf } from './pieces.js';
import type { GroupState, ParameterState, TrainedState } from './state.js';

/**
 * Stage 0: whole weights, and PyTorch's own optimizer state, which knows parameters by number alone. With fp16 the f32 weights are in the optimizer's
 * state: as one flat vector for each group, or a list for each.
 */
export function readStage0(model: ModelStates): TrainedState {
  const names = trainable(model);
  const fields = model.fields.optionalFields('optimizer');
  if (!fields) return { parameters: weightsOnly(model, names), groups: [], steps: [], lossScaler: undefined };
  if (fields.has('fp32_groups_flat')) return readFlat(model, fields, names);
  const optimizer = optimizerStateDict(fields.has('optimizer_state_dict') ? fields.fields('optimizer_state_dict') : fields);
  const masters = fields.has('fp32_groups') ? (fields.list('fp32_groups') as readonly (readonly TorchTensor[])[]).flat() : undefined;
  const parameters = new Map<string, ParameterState>();
  const steps: number[] = [];
  const assigned = assign(optimizer, model, names, fields);
  const groups = optimizer.groups.map(
    ({ params, settings }): GroupState => ({ names: params.map((index) => assigned.get(index)!), settings }),
  );
  let next = 0;
  for (const { params, settings } of optimizer.groups) {
    for (const index of params) {
      const name = assigned.get(index)!;
      const low = model.module.get(name)!;
      const weights = masters ? masters[next++] : low;
      if (!(weights instanceof TorchTensor) || weights.numel !== low.numel)
        throw fields.wrong(`fp32_groups has not the ${low.numel} elements of ${name}`);
      const { tensors, steps: count = numberOf(settings.get('step')) } = tensorsOfState(optimizer.stateOf(index), low.numel, fields);
      if (count !== undefined) steps.push(count);
      const states = new Map([...tensors].map(([kind, tensor]) => [kind, wholeOf(tensor)]));
      parameters.set(name, { name, shape: low.shape, weights: wholeOf(weights), states });
    }
  }
  return { parameters, groups, steps, lossScaler: scalerOf(fields) };
}

/** Of one group: names of more can't be told from a flat vector. */
function readFlat(model: ModelStates, fields: Fields, names: readonly string[]): TrainedState {
  const flat = fields.tensors('fp32_groups_flat');
  const optimizer = optimizerStateDict(fields.fields('optimizer_state_dict'));
  const [weights] = flat;
  if (flat.length !== 1 || !weights)
    throw fields.wrong(
      `${flat.length} parameter groups in flat vectors without names can't be told apart; save the checkpoint at ZeRO stage 1`,
    );
  const { params = [], settings = new Map<string, PickleValue>() } = optimizer.groups[0] ?? {};
  const { tensors, steps = numberOf(settings.get('step')) } = tensorsOfState(optimizer.stateOf(params[0] ?? 0), weights.numel, fields);
  const parameters = new Map<string, ParameterState>();
  let offset = 0;
  for (const name of names) {
    const { shape } = model.module.get(name)!;
    const count = numelOfShape(shape);
    const part = (tensor: TorchTensor): Pieces => {
      const pieces = sliceOf([tensor], offset, count);
      if (!pieces) throw fields.wrong(`${name} ends at element ${offset + count} of fp32_groups_flat, which has ${tensor.numel}`);
      return pieces;
    };
    const states = new Map([...tensors].map(([kind, tensor]) => [kind, part(tensor)]));
    parameters.set(name, { name, shape, weights: part(weights), states });
    offset += count;
  }
  if (offset !== weights.numel)
    throw fields.wrong(`expected ${offset} elements of fp32_groups_flat, got ${weights.numel}: are some parameters frozen?`);
  return { parameters, groups: [{ names, settings }], steps: steps === undefined ? [] : [steps], lossScaler: scalerOf(fields) };
}

/** In the order of the model, without buffers, and tied ones once. */
function trainable(model: ModelStates): string[] {
  const { aliases, buffers, frozenShapes } = model;
  return [...model.module.keys()].filter((name) => !buffers.has(name) && !aliases.has(name) && !frozenShapes.has(name));
}

function weightsOnly(model: ModelStates, names: readonly string[]): Map<string, ParameterState> {
  return new Map(
    names.map((name) => {
      const tensor = model.module.get(name)!;
      return [name, { name, shape: tensor.shape, weights: wholeOf(tensor), states: new Map() }];
    }),
  );
}

/**
 * Names of the numbers. Within a group parameters keep the order of the model; with several groups a shape tells which it belongs to,
 * where no other group has that shape.
 */
function assign(optimizer: OptimizerStateDict, model: ModelStates, names: readonly string[], fields: Fields): Map<number, string> {
  const shapeOf = (name: string) => String(model.module.get(name)!.shape);
  const shapeOfIndex = (index: number) => {
    const tensors = [...optimizer.stateOf(index)].flatMap(([kind, value]) =>
      kind !== 'step' && value instanceof TorchTensor ? [value] : [],
    );
    // Some optimizers keep a number beside what they have for each element.
    const tensor = tensors.find(({ shape }) => shape.length > 0) ?? tensors[0];
    return tensor && String(tensor.shape);
  };
  const all = optimizer.groups.flatMap(({ params }) => params);
  if (all.length !== names.length)
    throw fields.wrong(`the optimizer has ${all.length} parameters, the model ${names.length}: frozen parameters can't be told at stage 0`);
  const assigned = new Map<number, string>();
  const take = (indices: readonly number[], from: readonly string[]) => {
    for (const [i, index] of indices.entries()) {
      const expected = shapeOfIndex(index);
      if (expected !== undefined && expected !== shapeOf(from[i]!))
        throw fields.wrong(`the state of parameter ${index} has shape [${expected}], ${from[i]} has [${shapeOf(from[i]!)}]`);
      assigned.set(index, from[i]!);
    }
  };
  if (optimizer.groups.length === 1) {
    take(all, names);
    return assigned;
  }
  const groupOfShape = new Map<string, number>();
  for (const [group, { params }] of optimizer.groups.entries()) {
    for (const index of params) {
      const shape = shapeOfIndex(index);
      if (shape === undefined || (groupOfShape.get(shape) ?? group) !== group)
        throw fields.wrong(
          `parameters of several groups share the shape [${shape ?? 'unknown'}], so which is which can't be told; save the checkpoint at ZeRO stage 1`,
        );
      groupOfShape.set(shape, group);
    }
  }
  for (const [group, { params }] of optimizer.groups.entries())
    take(
      params,
      names.filter((name) => groupOfShape.get(shapeOf(name)) === group),
    );
  return assigned;
}

/** FP16_Optimizer has a loss scaler, or its fields among its own. */
function scalerOf(fields: Fields): PickleValue | undefined {
  if (fields.has('loss_scaler')) return fields.get('loss_scaler');
  return fields.has('cur_scale') && fields.get('dynamic_loss_scale') === true ? fields.dictionary : undefined;
}
