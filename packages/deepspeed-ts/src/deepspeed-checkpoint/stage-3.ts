import type { PickleValue, TorchFile, TorchTensor } from '@deepspeed-ts/core';
import { Fields, numberOf, numelOfShape } from './fields.js';
import type { ModelStates } from './model-states.js';
import { type OptimizerStateDict, optimizerStateDict, tensorsOfState } from './optimizer-states.js';
import { type Piece, type Pieces, sliceOf, zerosOf } from './pieces.js';
import type { GroupState, ParameterState, TrainedState } from './state.js';

/** What a rank has: its parts of all parameters, one after the other, cut into sub-groups. */
interface RankState {
  readonly fields: Fields;
  readonly weights: readonly TorchTensor[];
  /** By sub-group. */
  readonly states: readonly ReadonlyMap<string, TorchTensor>[];
  readonly optimizer: OptimizerStateDict;
}

/** The states of a sub-group by its weights. */
type Owners = ReadonlyMap<TorchTensor, ReadonlyMap<string, TorchTensor>>;

/** Stage 3: every parameter is cut by itself, into as many equal parts as there are ranks; the last ones are padded. */
export function readStage3(model: ModelStates, files: readonly TorchFile[]): TrainedState {
  const { shapes } = model;
  if (!shapes) throw model.fields.wrong('param_shapes is missing, which says how parameters lie in flat vectors');
  const steps: number[] = [];
  const ranks = files.map((file) => rankState(file, steps));
  const owners: Owners = new Map(ranks.flatMap(({ weights, states }) => weights.map((tensor, i) => [tensor, states[i]!] as const)));
  const kinds = [...new Set(ranks.flatMap(({ states }) => states.flatMap((state) => [...state.keys()])))];
  const parameters = new Map<string, ParameterState>();
  let offset = 0;
  for (const [name, shape] of shapes.flatMap((group) => [...group])) {
    const part = Math.ceil(numelOfShape(shape) / files.length);
    const weights = gather(ranks, offset, name, shape);
    const states = kinds.map((kind) => [kind, weights.flatMap((piece) => stateOf(owners, kind, piece))] as const);
    parameters.set(name, { name, shape, weights, states: new Map(states) });
    offset += part;
  }
  for (const { weights, fields } of ranks) {
    const held = weights.reduce((sum, { numel }) => sum + numel, 0);
    if (held !== offset)
      throw fields.wrong(
        `expected ${offset} elements of fp32_flat_groups on this rank, got ${held}: files of another number of ranks, or an optimizer that was offloaded to NVMe?`,
      );
  }
  return { parameters, groups: groupsOf(ranks[0]!, shapes), steps, lossScaler: ranks[0]!.fields.get('loss_scaler') };
}

/** The parts of a parameter on all ranks, without padding. */
export function partitionOf(shape: readonly number[], ranks: number): { rank: number; count: number }[] {
  const numel = numelOfShape(shape);
  const part = Math.ceil(numel / ranks);
  return Array.from({ length: ranks }, (_, rank) => ({ rank, count: Math.min(part, numel - rank * part) })).filter(
    ({ count }) => count > 0,
  );
}

function gather(ranks: readonly RankState[], offset: number, name: string, shape: readonly number[]): Pieces {
  return partitionOf(shape, ranks.length).flatMap(({ rank, count }) => {
    const { weights, fields } = ranks[rank]!;
    const pieces = sliceOf(weights, offset, count);
    if (!pieces)
      throw fields.wrong(
        `${name} ends at element ${offset + count}, beyond fp32_flat_groups: files of another number of ranks, or an optimizer that was offloaded to NVMe?`,
      );
    return pieces;
  });
}

/** The same elements of a state; zeros where it is not there because no gradient came yet. */
function stateOf(owners: Owners, kind: string, piece: Piece): Pieces {
  const tensor = owners.get(piece.tensor!)?.get(kind);
  return tensor ? [{ ...piece, tensor }] : zerosOf(piece.count);
}

function rankState(file: TorchFile, steps: number[]): RankState {
  const fields = Fields.of(file.path, file.root).fields('optimizer_state_dict');
  const weights = fields.tensors('fp32_flat_groups');
  const optimizer = optimizerStateDict(fields.fields('optimizer_state_dict'));
  const states: ReadonlyMap<string, TorchTensor>[] = [];
  for (const { params, settings } of optimizer.groups) {
    for (const index of params) {
      const numel = weights[states.length]?.numel;
      if (numel === undefined) throw fields.wrong(`the optimizer has more than ${weights.length} sub-groups, fp32_flat_groups of them`);
      const found = tensorsOfState(optimizer.stateOf(index), numel, fields);
      const count = found.steps ?? numberOf(settings.get('step'));
      if (count !== undefined) steps.push(count);
      states.push(found.tensors);
    }
  }
  // Sub-groups of which the optimizer has none have no state.
  while (states.length < weights.length) states.push(new Map());
  return { fields, weights, states, optimizer };
}

/** A sub-group belongs to one group, and `shapes` are by sub-group, or by group where there is only one each. */
function groupsOf({ optimizer }: RankState, shapes: readonly ReadonlyMap<string, readonly number[]>[]): GroupState[] {
  const count = optimizer.groups.reduce((sum, { params }) => sum + params.length, 0);
  let next = 0;
  return optimizer.groups.map(({ params, settings }: { params: readonly number[]; settings: ReadonlyMap<string, PickleValue> }) => {
    const own = count === shapes.length ? shapes.slice(next, next + params.length) : [];
    next += params.length;
    return { names: own.flatMap((group) => [...group.keys()]), settings };
  });
}
