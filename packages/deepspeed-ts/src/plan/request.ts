import { DecoderLM, DeepSpeedError, decoderConfig, type MemoryModel, namedParameters } from '@deepspeed-ts/core';
import { cpuMemoryModel } from '@deepspeed-ts/kernels-cpu';
import { loadConfig } from '../config/index.js';
import { readConfig } from '../config/source.js';
import type { DeviceName } from '../device.js';
import type { EngineOptions } from '../engine/assemble.js';
import type { Batch } from '../engine/batch.js';
import type { TrainableModel } from '../engine/parts.js';
import { dtypesOf } from '../precision/index.js';
import type { Holdings } from './dry-device.js';
import { dryRun, type Usage } from './dry-run.js';
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
  /** Recompute blocks in backward instead of keeping their activations; default: as the model says. */
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
  readonly recompute: boolean;
  readonly sequenceLength: number | undefined;
  readonly batch: (samples: number) => Batch;
  readonly device: DeviceName;
  readonly memoryModel: MemoryModel;
}

export async function requestOf(options: PlanOptions): Promise<PlanRequest> {
  const { modelConfig, worldSize, device = 'cuda', optimizer, parameterGroups } = options;
  const model = options.model ?? (modelConfig ? new DecoderLM(decoderConfig(modelConfig)) : undefined);
  if (!model) throw new DeepSpeedError('ERR_PLAN', '[plan] expected a model or a modelConfig, got neither');
  if (!Number.isInteger(worldSize) || worldSize < 1)
    throw new DeepSpeedError('ERR_PLAN', `[plan] worldSize: expected a number of ranks, at least 1, got ${worldSize}`);
  const longest = model instanceof DecoderLM ? model.config.maxPositions : undefined;
  const sequenceLength = options.sequenceLength ?? longest;
  if (longest !== undefined && sequenceLength! > longest)
    throw new DeepSpeedError('ERR_PLAN', `[plan] sequenceLength: the model takes at most ${longest} tokens, got ${sequenceLength}`);
  if (!options.batch && sequenceLength === undefined)
    throw new DeepSpeedError('ERR_PLAN', '[plan] expected sequenceLength, or batch for a model whose micro-batches are not tokens');
  return {
    model,
    raw: readConfig(options.config).raw as Readonly<Record<string, unknown>>,
    worldSize,
    recompute: options.recompute ?? recomputeOf(model),
    sequenceLength: options.batch ? undefined : sequenceLength,
    batch: options.batch ?? ((samples) => tokens(samples, sequenceLength!)),
    device,
    memoryModel: await memoryModelOf(device),
    ...(optimizer && { optimizer }),
    ...(parameterGroups && { parameterGroups }),
  };
}

/** @throws ConfigError when the request's config can't be used at its number of ranks */
export async function planRequest(request: PlanRequest): Promise<MemoryPlan> {
  const { worldSize, device, memoryModel, sequenceLength, recompute } = request;
  const config = loadConfig(request.raw, worldSize);
  const usage = await withRecompute(request, () =>
    dryRun({ ...request, config, ranks: worldSize, memory: memoryModel }, request.batch(config.train_micro_batch_size_per_gpu)),
  );
  const fixed = memoryModel.fixed(worldSize);
  const taken = usage.reserved + usage.workspace + sum(fixed);
  return {
    device,
    worldSize,
    modelParameters: [...namedParameters(request.model).values()].reduce((total, { numel }) => total + numel, 0),
    settings: {
      stage: config.zero_optimization.stage,
      dtype: dtypesOf(config).dtype,
      microBatch: config.train_micro_batch_size_per_gpu,
      accumulation: config.gradient_accumulation_steps,
      batch: config.train_batch_size,
      recompute,
      sequenceLength,
    },
    steady: rowsOf(usage.steady, usage),
    peak: { bytes: usage.peak, rows: rowsOf(usage.atPeak, usage), when: usage.when },
    reserved: usage.reserved,
    workspace: usage.workspace,
    fixed,
    required: taken,
    host: memoryModel.host(worldSize),
  };
}

/** Whether recomputing can be switched on in a model. */
export function canRecompute(model: TrainableModel): boolean {
  return 'recompute' in model && typeof model.recompute === 'boolean';
}

export async function memoryModelOf(device: DeviceName): Promise<MemoryModel> {
  if (device === 'cpu') return cpuMemoryModel();
  // Imported only when wanted: it looks for a GPU.
  return (await import('@deepspeed-ts/kernels-cuda')).cudaMemoryModel();
}

/** Runs `body` with the model set as the request wants it, and sets it back. */
export async function withRecompute<T>({ model, recompute }: PlanRequest, body: () => Promise<T>): Promise<T> {
  if (!canRecompute(model)) return body();
  const settable = model as TrainableModel & { recompute: boolean };
  const before = settable.recompute;
  settable.recompute = recompute;
  try {
    return await body();
  } finally {
    settable.recompute = before;
  }
}

function recomputeOf(model: TrainableModel): boolean {
  return canRecompute(model) && (model as TrainableModel & { recompute: boolean }).recompute;
}

function tokens(samples: number, length: number): Batch {
  const ids = { data: new Int32Array(samples * length), shape: [samples, length] };
  return { inputIds: ids, labels: ids };
}

function rowsOf({ parameters, gathered, gradients, optimizer, activations, communication, data }: Holdings, { master }: Usage): MemoryRows {
  return { parameters, gathered, gradients, master, optimizer: optimizer - master, activations, communication, data };
}

function sum(values: Readonly<Record<string, number>>): number {
  return Object.values(values).reduce((a, b) => a + b, 0);
}
