import { type Batch, DeepSpeedError, type MemoryModel, namedParameters } from '@deepspeed-ts/core';
import { cpuMemoryModel } from '@deepspeed-ts/kernels-cpu';
import { DecoderLM, decoderConfig, decoderOf } from '@deepspeed-ts/transformers';
import type { DeepSpeedConfig } from '../config/index.js';
import { readConfig } from '../config/source.js';
import type { DeviceName } from '../device.js';
import type { EngineOptions } from '../engine/assemble.js';
import type { TrainableModel } from '../engine/parts.js';
import { dtypesOf } from '../precision/index.js';
import type { Holdings } from './dry-device.js';
import { dryRun, drySetup, type Usage } from './dry-run.js';
import type { MemoryPlan, MemoryRows } from './memory-plan.js';

export interface PlanOptions extends Pick<EngineOptions, 'optimizer' | 'parameterGroups'> {
  /** The model, not held by an engine at the time. Building one takes no memory. */
  readonly model?: TrainableModel;
  /** Instead of a model: the config.json of a Hugging Face directory. */
  readonly modelConfig?: Readonly<Record<string, unknown>>;
  /** A DeepSpeed config: an object, the path of a JSON or HJSON file, or JSON in base64. */
  readonly config: string | object;
  readonly worldSize: number;
  /** Tokens of a sequence; default: the most that the model takes. */
  readonly sequenceLength?: number;
  /** A micro-batch of so many samples, for a model that is not a language model: only shapes and types count. */
  readonly batch?: (samples: number) => Batch;
  /** Recompute blocks in backward, as `activation_checkpointing.enabled` in the config does. */
  readonly recompute?: boolean;
  /** What it will run on; it need not be here. Default 'cuda'. */
  readonly device?: DeviceName;
  /** Memory of one device, in bytes or as `'80GiB'`: a plan that does not fit is refused. */
  readonly memory?: number | string;
}

/** Options with everything looked up. */
export interface PlanRequest extends Pick<EngineOptions, 'optimizer' | 'parameterGroups'> {
  readonly model: TrainableModel;
  /** As the user wrote it. */
  readonly raw: Readonly<Record<string, unknown>>;
  readonly worldSize: number;
  readonly sequenceLength: number | undefined;
  /** `undefined`: what a step takes is not known, and state alone is planned. */
  readonly batch: ((samples: number) => Batch) | undefined;
  readonly device: DeviceName;
  readonly memoryModel: MemoryModel;
}

export async function requestOf(options: PlanOptions): Promise<PlanRequest> {
  const { modelConfig, worldSize, device = 'cuda', optimizer, parameterGroups } = options;
  const model = options.model ?? (modelConfig ? new DecoderLM(decoderConfig(modelConfig)) : undefined);
  if (!model) throw new DeepSpeedError('ERR_PLAN', '[plan] expected a model or a modelConfig, got neither');
  if (!Number.isInteger(worldSize) || worldSize < 1)
    throw new DeepSpeedError('ERR_PLAN', `[plan] worldSize: expected a number of ranks, at least 1, got ${worldSize}`);
  const longest = decoderOf(model)?.config.maxPositions;
  const sequenceLength = options.sequenceLength ?? longest;
  if (longest !== undefined && sequenceLength! > longest)
    throw new DeepSpeedError('ERR_PLAN', `[plan] sequenceLength: the model takes at most ${longest} tokens, got ${sequenceLength}`);
  if (!options.batch && sequenceLength === undefined)
    throw new DeepSpeedError('ERR_PLAN', '[plan] expected sequenceLength, or batch for a model whose micro-batches are not tokens');
  const raw = readConfig(options.config).raw as Readonly<Record<string, unknown>>;
  return {
    model,
    raw: options.recompute ? merged(raw, { activation_checkpointing: { enabled: true } }) : raw,
    worldSize,
    sequenceLength: options.batch ? undefined : sequenceLength,
    batch: options.batch ?? ((samples) => tokens(samples, sequenceLength!)),
    device,
    memoryModel: await memoryModelOf(device),
    ...(optimizer && { optimizer }),
    ...(parameterGroups && { parameterGroups }),
  };
}

/** The plan of a request with this config, which is the request's own or a change of it. */
export async function planRequest(request: PlanRequest, config: DeepSpeedConfig): Promise<MemoryPlan> {
  const { worldSize, device, memoryModel, sequenceLength, model } = request;
  const batch = request.batch?.(config.train_micro_batch_size_per_gpu);
  const setup = { ...request, config, ranks: worldSize, memory: memoryModel };
  const usage = await (batch ? dryRun(setup, batch) : drySetup(setup));
  const fixed = memoryModel.fixed(worldSize);
  const taken = usage.reserved + usage.workspace + sum(fixed);
  return {
    device,
    worldSize,
    modelParameters: [...namedParameters(model).values()].reduce((total, { numel }) => total + numel, 0),
    settings: {
      stage: config.zero_optimization.stage,
      dtype: dtypesOf(config).dtype,
      microBatch: config.train_micro_batch_size_per_gpu,
      accumulation: config.gradient_accumulation_steps,
      batch: config.train_batch_size,
      recompute: recomputes(config, model),
      sequenceLength,
    },
    steady: rowsOf(usage.steady, usage),
    peak: { bytes: usage.peak, rows: rowsOf(usage.atPeak, usage), when: usage.when },
    reserved: usage.reserved,
    workspace: usage.workspace,
    fixed,
    required: taken,
    host: { ...memoryModel.host(worldSize), ...(usage.host > 0 && { offloaded: usage.host }) },
  };
}

export async function memoryModelOf(device: DeviceName): Promise<MemoryModel> {
  if (device === 'cpu') return cpuMemoryModel();
  // Imported only when wanted: it looks for a GPU.
  return (await import('@deepspeed-ts/kernels-cuda')).cudaMemoryModel();
}

/** Whether blocks are recomputed: as the config says, else as the model does. */
export function recomputes({ activation_checkpointing: asked }: DeepSpeedConfig, model: TrainableModel): boolean {
  const { enabled, every_nth_block, number_checkpoints, cpu_checkpointing } = asked;
  if (enabled !== null) return enabled;
  return every_nth_block > 1 || number_checkpoints !== null || cpu_checkpointing || ('recompute' in model && model.recompute === true);
}

/** `patch` over `base`, objects into objects. */
export function merged(base: Readonly<Record<string, unknown>>, patch: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(patch)) {
    const own = base[key];
    result[key] = isRecord(own) && isRecord(value) ? merged(own, value) : value;
  }
  return result;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function tokens(samples: number, length: number): Batch {
  const ids = { data: new Int32Array(samples * length), shape: [samples, length] };
  return { inputIds: ids, labels: ids };
}

function rowsOf(
  { parameters, gathered, gradients, optimizer, activations, communication, data, host }: Holdings,
  { master }: Usage,
): MemoryRows {
  return { parameters, gathered, gradients, master, optimizer: optimizer - master, activations, communication, data, host };
}

function sum(values: Readonly<Record<string, number>>): number {
  return Object.values(values).reduce((a, b) => a + b, 0);
}
