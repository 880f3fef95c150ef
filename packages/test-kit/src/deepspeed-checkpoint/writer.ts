import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { call, dict, float, instance, type Py, tuple } from '../torch/pickle-writer.js';
import { floats, Storage, TorchWriter } from '../torch/torch-writer.js';

export interface SyntheticParameter {
  readonly name: string;
  readonly shape: readonly number[];
}

/** A checkpoint as DeepSpeed 0.19.6 lays one out. */
export interface SyntheticCheckpoint {
  readonly stage: 0 | 1 | 2 | 3;
  readonly world: number;
  /** Trained parameters by parameter group. */
  readonly groups: readonly (readonly SyntheticParameter[])[];
  readonly frozen?: readonly SyntheticParameter[];
  /** Other names of parameters. */
  readonly tied?: Readonly<Record<string, string>>;
  readonly buffers?: readonly SyntheticParameter[];
  /** Stage 3: parameters in a sub-group. */
  readonly subGroup?: number;
  /** Stages 1 and 2: states without padding, as elastic_checkpoint writes them. */
  readonly elastic?: boolean;
  /** Of bf16 by the optimizer that is not ZeRO's, which does not name its stage. */
  readonly bf16?: boolean;
  /** Stage 0: f32 weights beside those of the model, as one flat vector or one by one. */
  readonly fp16?: 'flat' | 'single' | undefined;
  /** Optimizer states of ZeRO's stages; default Adam's. */
  readonly kinds?: readonly string[];
  readonly lossScaler?: Py;
  readonly client?: Readonly<Record<string, Py>>;
  /** Of each group; default 7. */
  readonly steps?: readonly number[];
  readonly scheduler?: Py;
}

export const KINDS = ['exp_avg', 'exp_avg_sq'] as const;
export const TAG = 'global_step9';

const numelOf = ({ shape }: SyntheticParameter) => shape.reduce((n, size) => n * size, 1);

/** Elements of a state of a parameter: all different, and each exact in f32. */
export function valuesOf(kind: string, { name, shape }: SyntheticParameter): Float32Array {
  let seed = 0;
  for (const char of `${kind}/${name}`) seed = (31 * seed + char.charCodeAt(0)) % 65521;
  return Float32Array.from({ length: numelOf({ name, shape }) }, (_, i) => (seed + i * 7.25) / 1024);
}

/** Writes the checkpoint's files under `directory`, with `latest`. */
export function writeDeepSpeedCheckpoint(directory: string, spec: SyntheticCheckpoint): void {
  const folder = join(directory, TAG);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(directory, 'latest'), TAG);
  const { stage, world } = spec;
  const prefix = spec.bf16 ? 'bf16_' : '';
  for (let rank = 0; rank < (stage === 3 ? world : 1); rank++) {
    const name = stage === 3 ? `zero_pp_rank_${rank}_mp_rank_00_model_states.pt` : 'mp_rank_00_model_states.pt';
    writeFileSync(join(folder, name), modelStates(spec, rank));
  }
  for (let rank = 0; rank < (stage === 0 ? 0 : world); rank++) {
    writeFileSync(join(folder, `${prefix}zero_pp_rank_${rank}_mp_rank_00_optim_states.pt`), optimizerStates(spec, rank));
  }
}

function modelStates(spec: SyntheticCheckpoint, rank: number): Buffer {
  const { stage, world, groups, frozen = [], buffers = [], tied = {} } = spec;
  const writer = new TorchWriter();
  const storages = new Map<string, Storage>();
  const tensors: Record<string, Py> = {};
  const add = (parameter: SyntheticParameter, empty: boolean, storage = weightsOf(spec, empty ? [] : valuesOf('weights', parameter))) => {
    storages.set(parameter.name, storage);
    tensors[parameter.name] = writer.tensor(storage, { shape: empty ? [0] : parameter.shape });
  };
  for (const parameter of groups.flat()) add(parameter, stage === 3);
  for (const parameter of frozen) add(parameter, stage === 3);
  for (const parameter of buffers) add(parameter, false);
  const all = [...groups.flat(), ...frozen];
  for (const [alias, name] of Object.entries(tied))
    add({ ...all.find((p) => p.name === name)!, name: alias }, stage === 3, storages.get(name)!);

  const shapes = (parameters: readonly SyntheticParameter[]) =>
    dict(Object.fromEntries(parameters.map(({ name, shape }) => [name, call('torch', 'Size', [tuple(...shape)])])));
  const fragment = (parameter: SyntheticParameter) => {
    const values = valuesOf('weights', parameter);
    if (stage !== 3) return writer.tensor(floats(values), { shape: parameter.shape });
    return writer.tensor(floats(partOf(values, rank, world)));
  };
  const zero = stage > 0;
  return writer.archive(
    dict({
      module: dict(tensors),
      buffer_names: buffers.map(({ name }) => name),
      optimizer: stage === 0 ? torchOptimizer(spec, writer) : null,
      param_shapes: zero ? (stage === 3 ? subGroupsOf(spec) : groups).map(shapes) : null,
      frozen_param_shapes: zero && frozen.length > 0 ? shapes(frozen) : null,
      shared_params: zero ? dict(tied) : null,
      frozen_param_fragments: zero && frozen.length > 0 ? dict(Object.fromEntries(frozen.map((p) => [p.name, fragment(p)]))) : null,
      lr_scheduler: spec.scheduler ?? dict({ last_batch_iteration: 8 }),
      skipped_steps: 2,
      global_steps: 9,
      global_samples: 9 * 3 * world,
      dp_world_size: world,
      mp_world_size: 1,
      ds_config: dict({ train_micro_batch_size_per_gpu: 3, ...(spec.bf16 && { bf16: dict({ enabled: true }) }) }),
      ds_version: '0.19.6',
      ...spec.client,
    }),
  );
}

/** Of the model: in 16 bits where the optimizer has them in f32. */
function weightsOf({ fp16 }: SyntheticCheckpoint, values: ArrayLike<number>): Storage {
  return fp16 ? new Storage('HalfStorage', 2, new Uint8Array(2 * values.length).fill(0x11)) : floats(values);
}

function optimizerStates(spec: SyntheticCheckpoint, rank: number): Buffer {
  const writer = new TorchWriter();
  const state = spec.stage === 3 ? stage3(spec, rank, writer) : stage12(spec, rank, writer);
  return writer.archive(dict({ optimizer_state_dict: dict(state), ds_config: dict({}), ds_version: '0.19.6' }));
}

/** A group's parameters one after the other, padded to a multiple of twice the number of ranks, of which each rank has an equal part. */
function stage12(spec: SyntheticCheckpoint, rank: number, writer: TorchWriter): Record<string, Py> {
  const { groups, world, elastic } = spec;
  const parts: Py[] = [];
  const states: Readonly<Record<string, Py>>[] = [];
  const mappings: Py[] = [];
  for (const [index, group] of groups.entries()) {
    const total = group.reduce((n, p) => n + numelOf(p), 0);
    const part = (Math.ceil(total / (2 * world)) * 2 * world) / world;
    const own = (kind: string) => {
      const flat = new Float32Array(part * world);
      flat.set(group.flatMap((p) => [...valuesOf(kind, p)]));
      const mine = flat.slice(rank * part, (rank + 1) * part);
      return elastic ? mine.slice(0, Math.max(0, total - rank * part)) : mine;
    };
    parts.push(writer.tensor(floats(own('weights'))));
    const step = stepsOf(spec, index);
    states.push({
      step: float(step),
      ...Object.fromEntries((spec.kinds ?? KINDS).map((kind) => [kind, writer.tensor(floats(own(kind)))])),
    });
    const fragments: [string, Py][] = [];
    let offset = 0;
    for (const p of group) {
      const from = Math.max(offset, rank * part);
      const to = Math.min(offset + numelOf(p), (rank + 1) * part);
      const address = { numel: to - from, start: from - rank * part };
      if (from < to) fragments.push([p.name, instance('deepspeed.utils.tensor_fragment', 'fragment_address', address)]);
      offset += numelOf(p);
    }
    mappings.push(dict(Object.fromEntries(fragments)));
  }
  return {
    loss_scaler: spec.lossScaler ?? instance('deepspeed.runtime.fp16.loss_scaler', 'LossScaler', { cur_scale: float(1), dynamic: false }),
    base_optimizer_state: elastic
      ? states.map(dict)
      : torchState(
          states,
          groups.map((_, i) => [i]),
        ),
    single_partition_of_fp32_groups: parts,
    ...(!spec.bf16 && { zero_stage: call('deepspeed.runtime.zero.config', 'ZeroStageEnum', [spec.stage]) }),
    partition_count: groups.map(() => world),
    param_slice_mappings: mappings,
  };
}

/** Every parameter is cut by itself; a rank's parts lie one after the other. */
function stage3(spec: SyntheticCheckpoint, rank: number, writer: TorchWriter): Record<string, Py> {
  const subGroups = subGroupsOf(spec);
  const flat = (group: readonly SyntheticParameter[], kind: string) =>
    writer.tensor(floats(group.flatMap((p) => [...partOf(valuesOf(kind, p), rank, spec.world)])));
  let next = 0;
  const groups = spec.groups.map((group) =>
    Array.from({ length: Math.ceil(group.length / (spec.subGroup ?? group.length)) }, () => next++),
  );
  const groupOf = (index: number) => groups.findIndex((indices) => indices.includes(index));
  const states = subGroups.map((group, i) => ({
    step: writer.tensor(floats([stepsOf(spec, groupOf(i))]), { shape: [] }),
    ...Object.fromEntries(KINDS.map((kind) => [kind, flat(group, kind)])),
  }));
  return {
    zero_stage: call('deepspeed.runtime.zero.config', 'ZeroStageEnum', [3]),
    loss_scaler: spec.lossScaler ?? null,
    partition_count: spec.world,
    optimizer_state_dict: torchState(states, groups),
    fp32_flat_groups: subGroups.map((group) => flat(group, 'weights')),
  };
}

function torchOptimizer(spec: SyntheticCheckpoint, writer: TorchWriter): Py {
  let next = 0;
  if (spec.fp16) return dict(fp16Optimizer(spec, writer));
  const states = spec.groups.flatMap((group, index) =>
    group.map((p) => ({
      step: writer.tensor(floats([stepsOf(spec, index)]), { shape: [] }),
      ...Object.fromEntries(KINDS.map((kind) => [kind, writer.tensor(floats(valuesOf(kind, p)), { shape: p.shape })])),
    })),
  );
  return torchState(
    states,
    spec.groups.map((group) => group.map(() => next++)),
  );
}

/** FP16_Optimizer, whose scaler's fields are among its own. */
function fp16Optimizer(spec: SyntheticCheckpoint, writer: TorchWriter): Record<string, Py> {
  const scaler = { dynamic_loss_scale: true, cur_scale: float(1024), cur_iter: 9, last_overflow_iter: 4 };
  const single = (kind: string) =>
    spec.groups.map((group) => group.map((p) => writer.tensor(floats(valuesOf(kind, p)), { shape: p.shape })));
  if (spec.fp16 === 'single') {
    return { ...scaler, optimizer_state_dict: torchOptimizer({ ...spec, fp16: undefined }, writer), fp32_groups: single('weights') };
  }
  const flat = (kind: string) => spec.groups.map((group) => writer.tensor(floats(group.flatMap((p) => [...valuesOf(kind, p)]))));
  const states = spec.groups.map((_, i) => ({
    step: stepsOf(spec, i),
    ...Object.fromEntries(KINDS.map((kind) => [kind, flat(kind)[i]!])),
  }));
  const params = spec.groups.map((_, i) => [i]);
  return { ...scaler, optimizer_state_dict: torchState(states, params), fp32_groups_flat: flat('weights') };
}

function torchState(states: readonly Readonly<Record<string, Py>>[], params: readonly (readonly number[])[]): Py {
  const groups = params.map((params, i) =>
    dict({ lr: float(1e-3 / (i + 1)), betas: tuple(float(0.9), float(0.95)), weight_decay: float(i), params }),
  );
  return dict({ state: new Map(states.map((state, i) => [i as Py, dict(state)])), param_groups: groups });
}

function subGroupsOf({ groups, subGroup }: SyntheticCheckpoint): SyntheticParameter[][] {
  return groups.flatMap((group) => {
    const size = subGroup ?? group.length;
    return Array.from({ length: Math.ceil(group.length / size) }, (_, i) => group.slice(i * size, (i + 1) * size));
  });
}

/** A rank's part of a vector, with zeros behind its end. */
function partOf(values: Float32Array, rank: number, world: number): Float32Array {
  const part = Math.ceil(values.length / world);
  const own = new Float32Array(part);
  own.set(values.subarray(rank * part, (rank + 1) * part));
  return own;
}

function stepsOf({ steps }: SyntheticCheckpoint, group: number): number {
  return steps?.[group] ?? 7;
}

/** Writes a universal checkpoint: a file for each state of each parameter. */
export function writeUniversalCheckpoint(directory: string, spec: SyntheticCheckpoint): void {
  const folder = join(directory, TAG);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(directory, 'latest_universal'), TAG);
  const states = spec.stage === 3 ? 'zero_pp_rank_0_mp_rank_00_model_states.pt' : 'mp_rank_00_model_states.pt';
  writeFileSync(join(folder, states), modelStates(spec, 0));
  for (const parameter of spec.groups.flat()) {
    const path = join(folder, 'zero', parameter.name);
    mkdirSync(path, { recursive: true });
    for (const kind of ['weights', ...KINDS]) {
      const writer = new TorchWriter();
      // From stage 3 without shape, and with the padding of parts.
      const values = [...valuesOf(kind, parameter), ...(spec.stage === 3 ? [0, 0] : [])];
      const tensor = writer.tensor(floats(values), spec.stage === 3 ? {} : { shape: parameter.shape });
      writeFileSync(
        join(path, `${kind === 'weights' ? 'fp32' : kind}.pt`),
        writer.archive(spec.stage === 3 ? tensor : dict({ param: tensor })),
      );
    }
    const writer = new TorchWriter();
    writeFileSync(join(path, 'step.pt'), writer.archive(writer.tensor(floats([7]), { shape: [] })));
  }
}
