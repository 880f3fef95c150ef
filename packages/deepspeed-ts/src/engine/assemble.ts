import {
  type Batch,
  type Communicator,
  ConfigError,
  type Device,
  type HostArray,
  type Parameter,
  type TrainingData,
} from '@deepspeed-ts/core';
import { type OptimizerOptions, ZeroStore, zeroOptions } from '@deepspeed-ts/zero';
import type { DeepSpeedConfig } from '../config/index.js';
import { type DataLoader, openLoader, type PrefetchLoader } from '../data/index.js';
import { type ConfiguredOptimizer, createOptimizer } from '../optimizers/index.js';
import { fp8Of } from '../precision/fp8.js';
import { dtypesOf, lossScalerOf } from '../precision/index.js';
import { createScheduler, LRScheduler, type Schedule } from '../schedules/index.js';
import { EngineOptimizer, type ParameterGroups } from './optimizer.js';
import type { EngineParts, TrainableModel } from './parts.js';

/** What the caller brings to a training besides its config and the ranks it runs on. */
export interface EngineOptions<Sample = Readonly<Record<string, HostArray>>> {
  /** Its `forward` takes a micro-batch on the device and gives the loss, f32 []. */
  readonly model: TrainableModel;
  /** An optimizer of your own, where the config has none: its algorithm, and the settings that `parameterGroups` may override. */
  readonly optimizer?: ConfiguredOptimizer;
  /** Settings by parameter that differ from the optimizer's, such as no weight decay for norms and biases. */
  readonly parameterGroups?: ParameterGroups;
  /** A learning-rate policy of your own, where the config has no scheduler. */
  readonly schedule?: Schedule;
  /** Samples to draw micro-batches from; `dataloader` in the result shuffles and shards them. */
  readonly trainingData?: TrainingData<Sample>;
  /** Micro-batches that are loaded ahead of training. Default: none for a dataset in memory, else two, or two for each thread. */
  readonly prefetch?: number;
  readonly collate?: (samples: readonly Sample[]) => Batch;
  /** Of initial weights, dropout and shuffling; the same on every rank. Default 0. */
  readonly seed?: number;
  /** Weights to begin with, by name: the whole parameter, or `undefined` to leave it to its initialiser. Default: the model's `weights`, where it has them. */
  readonly initial?: (name: string, parameter: Parameter) => ArrayLike<number> | undefined;
}

/** What an engine is made of, for a config: all that takes memory before the first step. The planner runs the same on a device that holds nothing. */
export async function engineParts<Sample>(
  options: EngineOptions<Sample>,
  config: DeepSpeedConfig,
  device: Device,
  communicator: Communicator,
  ownsCommunicator: boolean,
): Promise<EngineParts & { readonly dataloader: DataLoader<Sample, Batch> | PrefetchLoader<Batch> | undefined }> {
  const { model, seed = 0, trainingData } = options;
  const { algorithm, options: settings, groups } = optimizerOf(config, options.optimizer, model);
  const optimizer = new EngineOptimizer(
    model,
    settings,
    groupsOf(groups, options.parameterGroups),
    config.optimizer?.type ?? algorithm.name,
  );
  const scheduler = schedulerOf(config, options.schedule, optimizer.lr);
  const dataloader = trainingData && (await loaderFor(trainingData, options, config, communicator));
  try {
    const fp8 = await fp8Of(config, model, device, communicator);
    const store = new ZeroStore<OptimizerOptions>(model, {
      device,
      communicator,
      optimizer: algorithm,
      seed,
      ...dtypesOf(config),
      ...zeroOptions(config.zero_optimization),
      ...(options.initial ? { initial: options.initial } : { weights: model.weights }),
    });
    try {
      await store.loadWeights();
    } catch (error) {
      store.dispose();
      throw error;
    }
    const lossScaler = lossScalerOf(config);
    return { model, config, device, communicator, store, optimizer, scheduler, lossScaler, fp8, dataloader, seed, ownsCommunicator };
  } catch (error) {
    // It may have threads.
    if (dataloader && 'dispose' in dataloader) await dataloader.dispose();
    throw error;
  }
}

function optimizerOf({ optimizer }: DeepSpeedConfig, own: ConfiguredOptimizer | undefined, model: TrainableModel): ConfiguredOptimizer {
  if (optimizer && own)
    throw new ConfigError(['optimizer: the config names one and initialize() was given another; leave one of them out']);
  if (own) return own;
  if (!optimizer) {
    throw new ConfigError([
      'optimizer: missing; expected an object such as {"type": "AdamW", "params": {"lr": 1e-4}}, or an optimizer of your own for initialize()',
    ]);
  }
  return createOptimizer(optimizer, model);
}

function schedulerOf({ scheduler }: DeepSpeedConfig, own: Schedule | undefined, lr: readonly number[]): LRScheduler | undefined {
  if (scheduler && own)
    throw new ConfigError(['scheduler: the config names one and initialize() was given a schedule; leave one of them out']);
  return own ? new LRScheduler(own, lr) : scheduler && createScheduler(scheduler, lr);
}

/** What the caller says of a parameter goes before what the optimizer says. */
function groupsOf(own: ParameterGroups | undefined, given: ParameterGroups | undefined): ParameterGroups | undefined {
  if (!own || !given) return given ?? own;
  return (name, parameter) => ({ ...own(name, parameter), ...given(name, parameter) });
}

function loaderFor<Sample>(
  data: TrainingData<Sample>,
  { collate, prefetch, seed = 0 }: EngineOptions<Sample>,
  config: DeepSpeedConfig,
  { rank, size }: Communicator,
): Promise<DataLoader<Sample, Batch> | PrefetchLoader<Batch>> {
  return openLoader<Sample, Batch>(data, {
    batchSize: config.train_micro_batch_size_per_gpu,
    rank,
    worldSize: size,
    seed,
    dropLast: config.dataloader_drop_last,
    ...(collate && { collate }),
    ...(prefetch !== undefined && { prefetch }),
  });
}
