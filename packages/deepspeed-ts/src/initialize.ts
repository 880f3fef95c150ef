import { type Backend, type Communicator, ConfigError, Device, type Parameter } from '@deepspeed-ts/core';
import { type OptimizerOptions, ZeroStore, zeroOptions } from '@deepspeed-ts/zero';
import { type DeepSpeedConfig, loadConfig } from './config/index.js';
import { DataLoader, type Dataset, type HostArray } from './data/index.js';
import { type DeviceName, openDevice } from './device.js';
import type { Batch } from './engine/batch.js';
import { DeepSpeedEngine, type TrainableModel } from './engine/engine.js';
import { EngineOptimizer, type ParameterGroups } from './engine/optimizer.js';
import type { EngineParts } from './engine/parts.js';
import { type ConfiguredOptimizer, createOptimizer } from './optimizers/index.js';
import { fp8Of } from './precision/fp8.js';
import { dtypesOf, lossScalerOf } from './precision/index.js';
import { createScheduler, type LRScheduler } from './schedules/index.js';

export interface InitializeOptions<Sample = Readonly<Record<string, HostArray>>> {
  /** Its `forward` takes a micro-batch on the device and gives the loss, f32 []. */
  readonly model: TrainableModel;
  /** A DeepSpeed config: an object, the path of a JSON or HJSON file, or JSON in base64. */
  readonly config: string | object;
  /** An optimizer of your own, where the config has none: its algorithm over flat ranges, and the settings that `parameterGroups` may override. */
  readonly optimizer?: ConfiguredOptimizer;
  /** Settings by parameter that differ from the optimizer's, such as no weight decay for norms and biases. */
  readonly parameterGroups?: ParameterGroups;
  /** Samples to draw micro-batches from; `dataloader` in the result shuffles and shards them. */
  readonly trainingData?: Dataset<Sample>;
  readonly collate?: (samples: readonly Sample[]) => Batch;
  /** Of initial weights, dropout and shuffling; the same on every rank. Default 0. */
  readonly seed?: number;
  /** Weights to begin with, by name: the whole parameter, or `undefined` to leave it to its initialiser. */
  readonly initial?: (name: string, parameter: Parameter) => ArrayLike<number> | undefined;
  /** What to compute on. Default: DEEPSPEED_TS_DEVICE, else the GPU where there is one (LOCAL_RANK picks which), else the CPU. */
  readonly device?: DeviceName;
  /** A backend of your own instead, together with the `communicator` that serves it. */
  readonly backend?: Backend;
  /** Default: the ranks that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe; one rank where they are not set. */
  readonly communicator?: Communicator;
}

export interface Initialized<Sample = Readonly<Record<string, HostArray>>> {
  readonly engine: DeepSpeedEngine;
  readonly optimizer: EngineOptimizer;
  /** Present when `trainingData` was given. */
  readonly dataloader: DataLoader<Sample, Batch> | undefined;
  /** Present when the config has a scheduler. */
  readonly scheduler: LRScheduler | undefined;
}

/**
 * Prepares a model for training as a DeepSpeed config says, on this rank of the run. Every rank calls it with the same arguments.
 *
 * @throws ConfigError listing every problem of the config; RendezvousError where the ranks don't find each other
 */
export async function initialize<Sample = Readonly<Record<string, HostArray>>>(
  options: InitializeOptions<Sample>,
): Promise<Initialized<Sample>> {
  const opened = options.backend && options.communicator ? undefined : await openDevice(options.device ?? deviceOf(options.backend));
  const communicator = options.communicator ?? (await opened!.connect());
  try {
    const config = loadConfig(options.config, communicator.size);
    const device = new Device(options.backend ?? opened!.backend);
    const parts = await engineParts(options, config, device, communicator);
    const { optimizer, dataloader, scheduler } = parts;
    return { engine: new DeepSpeedEngine(parts), optimizer, dataloader, scheduler };
  } catch (error) {
    if (!options.communicator) await communicator.close();
    throw error;
  }
}

/** What an engine is made of, for a config: all that takes memory before the first step. The planner runs the same on a device that holds nothing. */
export async function engineParts<Sample>(
  options: InitializeOptions<Sample>,
  config: DeepSpeedConfig,
  device: Device,
  communicator: Communicator,
): Promise<EngineParts & { readonly dataloader: DataLoader<Sample, Batch> | undefined }> {
  const { model, seed = 0, trainingData } = options;
  const { algorithm, options: settings } = optimizerOf(config, options.optimizer);
  const optimizer = new EngineOptimizer(model, settings, options.parameterGroups, config.optimizer?.type ?? algorithm.name);
  const scheduler = config.scheduler && createScheduler(config.scheduler, optimizer.lr);
  const dataloader = trainingData && loaderFor(trainingData, options, config, communicator);
  const fp8 = await fp8Of(config, model, device);
  const store = new ZeroStore<OptimizerOptions>(model, {
    device,
    communicator,
    optimizer: algorithm,
    seed,
    ...dtypesOf(config),
    ...zeroOptions(config.zero_optimization),
    ...(options.initial && { initial: options.initial }),
  });
  const ownsCommunicator = options.communicator === undefined;
  const lossScaler = lossScalerOf(config);
  return { model, config, device, communicator, store, optimizer, scheduler, lossScaler, fp8, dataloader, seed, ownsCommunicator };
}

/** Where a backend of the caller's comes without a communicator: what connects ranks of its kind. */
function deviceOf(backend: Backend | undefined): DeviceName | undefined {
  return backend && (backend.name === 'cuda' ? 'cuda' : 'cpu');
}

function optimizerOf({ optimizer }: DeepSpeedConfig, own: ConfiguredOptimizer | undefined): ConfiguredOptimizer {
  if (optimizer && own)
    throw new ConfigError(['optimizer: the config names one and initialize() was given another; leave one of them out']);
  if (own) return own;
  if (!optimizer) {
    throw new ConfigError([
      'optimizer: missing; expected an object such as {"type": "AdamW", "params": {"lr": 1e-4}}, or an optimizer of your own for initialize()',
    ]);
  }
  return createOptimizer(optimizer);
}

function loaderFor<Sample>(
  data: Dataset<Sample>,
  { collate, seed = 0 }: InitializeOptions<Sample>,
  config: DeepSpeedConfig,
  { rank, size }: Communicator,
): DataLoader<Sample, Batch> {
  return new DataLoader<Sample, Batch>(data, {
    batchSize: config.train_micro_batch_size_per_gpu,
    rank,
    worldSize: size,
    seed,
    dropLast: config.dataloader_drop_last,
    ...(collate && { collate }),
  });
}
