import { PickleObject, type PickleValue, type TorchFile, type TorchTensor } from '@deepspeed-ts/core';
import { Fields, numberOf, numelOfShape } from './fields.js';
import type { ModelStates } from './model-states.js';
import { optimizerStateDict, tensorsOfState } from './optimizer-states.js';
import { type Piece, sliceOf, zerosOf } from './pieces.js';
import type { GroupState, ParameterState, TrainedState } from './state.js';

/** What a rank has of a parameter group: its part of a flat vector, and of that vector's states. */
interface RankPart {
  readonly fields: Fields;
  readonly weights: TorchTensor;
  readonly states: ReadonlyMap<string, TorchTensor>;
  readonly steps: number | undefined;
  readonly settings: ReadonlyMap<string, PickleValue>;
}

/**
 * Stages 1 and 2, and DeepSpeed's BF16_Optimizer: the parameters of a group lie one after the other in a flat vector, padded at its end
 * to equal parts, of which each rank has one.
 */
export function readStage12(model: ModelStates, files: readonly TorchFile[]): TrainedState {
  const { shapes } = model;
  if (!shapes) throw model.fields.wrong('param_shapes is missing, which says how parameters lie in flat vectors');
  const ranks = files.map((file) => Fields.of(file.path, file.root).fields('optimizer_state_dict'));
  const parameters = new Map<string, ParameterState>();
  const groups: GroupState[] = [];
  const steps: number[] = [];
  for (const [index, group] of shapes.entries()) {
    const parts = ranks.map((fields) => rankPart(fields, index));
    for (const part of parts) if (part.steps !== undefined) steps.push(part.steps);
    groups.push({ names: [...group.keys()], settings: parts[0]!.settings });
    let offset = 0;
    for (const [name, shape] of group) {
      const count = numelOfShape(shape);
      const weights = sliceOf(
        parts.map(({ weights }) => weights),
        offset,
        count,
      );
      if (!weights) {
        const all = parts.reduce((sum, { weights }) => sum + weights.numel, 0);
        throw parts
          .at(-1)!
          .fields.wrong(`${name} ends at element ${offset + count} of a group of ${all}: files of another number of ranks?`);
      }
      checkMapping(parts, index, name, weights);
      parameters.set(name, { name, shape, weights, states: statesOf(parts, offset, count) });
      offset += count;
    }
  }
  return { parameters, groups, steps, lossScaler: ranks[0]!.get('loss_scaler') };
}

function statesOf(parts: readonly RankPart[], offset: number, count: number): ParameterState['states'] {
  const kinds = new Set(parts.flatMap(({ states }) => [...states.keys()]));
  const states = new Map<string, Piece[]>();
  for (const kind of kinds) {
    // A rank whose part got no gradient yet has no state.
    const pieces = sliceOf(
      parts.map(({ weights }) => weights),
      offset,
      count,
    )!.flatMap((piece): readonly Piece[] => {
      const part = parts.find(({ weights }) => weights === piece.tensor)!;
      const tensor = part.states.get(kind);
      return tensor ? [{ ...piece, tensor }] : zerosOf(piece.count);
    });
    states.set(kind, pieces);
  }
  return states;
}

function rankPart(fields: Fields, group: number): RankPart {
  const weights = fields.tensors('single_partition_of_fp32_groups')[group];
  if (!weights) throw fields.wrong(`single_partition_of_fp32_groups has no group ${group}`);
  const base = fields.get('base_optimizer_state');
  // With elastic_checkpoint a list of states by group, without padding.
  if (Array.isArray(base)) {
    const state = Fields.of(fields.path, base[group] ?? null, `base_optimizer_state[${group}]`);
    return { fields, weights, settings: new Map(), ...named(tensorsOfState(new Map(state.named()), weights.numel, state)) };
  }
  const optimizer = optimizerStateDict(fields.fields('base_optimizer_state'));
  const { params = [], settings = new Map<string, PickleValue>() } = optimizer.groups[group] ?? {};
  const found = tensorsOfState(optimizer.stateOf(params[0] ?? group), weights.numel, fields);
  return { fields, weights, settings, ...named(found, numberOf(settings.get('step'))) };
}

function named({ tensors, steps }: ReturnType<typeof tensorsOfState>, groupSteps?: number) {
  // DeepSpeed's fused Adam counts by group.
  return { states: tensors, steps: steps ?? groupSteps };
}

/** Where DeepSpeed wrote down itself how a rank's part is cut, it must be as computed. */
function checkMapping(parts: readonly RankPart[], group: number, name: string, pieces: readonly Piece[]): void {
  for (const { fields, weights } of parts) {
    if (!fields.has('param_slice_mappings')) continue;
    const mapping = fields.list('param_slice_mappings')[group];
    if (!(mapping instanceof Map) || mapping.size === 0) continue;
    const address = mapping.get(name);
    const attributes = address instanceof PickleObject ? address.attributes : undefined;
    const piece = pieces.find(({ tensor }) => tensor === weights);
    const [start, numel] = [numberOf(attributes?.get('start')), numberOf(attributes?.get('numel'))];
    if (attributes === undefined ? piece === undefined : start === piece?.start && numel === piece?.count) continue;
    const got = attributes === undefined ? 'none' : `${numel} from ${start}`;
    throw fields.wrong(
      `${name}: expected ${piece ? `${piece.count} elements from ${piece.start}` : 'no elements'} on this rank, param_slice_mappings has ${got}`,
    );
  }
}
