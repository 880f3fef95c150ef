import {
  type Backend,
  type Batch,
  type Communicator,
  type CompletedConfig,
  type ConfigPlace,
  type Dataset,
  Device,
  type HostArray,
} from '@deepspeed-ts/core';
import { checkedConfig } from './config/index.js';
import { readConfig } from './config/source.js';
import type { DataLoader, PrefetchLoader } from './data/index.js';
import { type DeviceName, openDevice } from './device.js';
import { type EngineOptions, engineParts } from './engine/assemble.js';
import { DeepSpeedEngine } from './engine/engine.js';
import type { EngineOptimizer } from './engine/optimizer.js';
import { Observability } from './observe/observability.js';
import { refuseWhatCannotFit } from './plan/refuse.js';
import type { LRScheduler } from './schedules/index.js';

export interface InitializeOptions<Sample = Readonly<Record<string, HostArray>>> extends EngineOptions<Sample> {
  /** A DeepSpeed config: an object, the path of a JSON or HJSON file, or JSON in base64. */
  readonly config: string | object;
  /**
   * Called with the config as it is written, before it is checked: for a trainer that fills in `"auto"` and what else it knows. What it
   * returns is checked instead, and its schedule is taken.
   */
  readonly completeConfig?: (raw: Readonly<Record<string, unknown>>, place: ConfigPlace) => CompletedConfig;
  /** What to compute on. Default: DEEPSPEED_TS_DEVICE, else the GPU where there is one (LOCAL_RANK picks which), else the CPU. */
  readonly device?: DeviceName;
  /** A backend of your own instead, together with the `communicator` that serves it. */
  readonly backend?: Backend;
  /** Memory that a rank's device has for this, in bytes or as `'80GiB'`; default: all of it. What surely can't fit is refused before anything is allocated. */
  readonly memoryLimit?: number | string;
  /** Default: the ranks that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe; one rank where they are not set. */
  readonly communicator?: Communicator;
}

/** Data in memory, drawn from when it is asked for: what most runs have. */
export interface WithDataset<Sample> {
  readonly trainingData?: Dataset<Sample>;
  readonly prefetch?: undefined;
}

export interface Initialized<Sample = Readonly<Record<string, HostArray>>, Loader = DataLoader<Sample, Batch>> {
  readonly engine: DeepSpeedEngine;
  readonly optimizer: EngineOptimizer;
  /** Present when `trainingData` was given. */
  readonly dataloader: Loader | undefined;
  /** Present when the config has a scheduler. */
  readonly scheduler: LRScheduler | undefined;
}

/**
 * Prepares a model for training as a DeepSpeed config says, on this rank of the run. Every rank calls it with the same arguments.
 *
 * @throws ConfigError listing every problem of the config; RendezvousError where the ranks don't find each other; DoesNotFitError, before anything
 * is allocated, where weights and optimizer state alone are more than the device has
 */
export function initialize<Sample = Readonly<Record<string, HostArray>>>(
  options: InitializeOptions<Sample> & WithDataset<Sample>,
): Promise<Initialized<Sample>>;
export function initialize<Sample = Readonly<Record<string, HostArray>>>(
  options: InitializeOptions<Sample>,
): Promise<Initialized<Sample, PrefetchLoader<Batch>>>;
export async function initialize<Sample>(
  options: InitializeOptions<Sample>,
): Promise<Initialized<Sample, DataLoader<Sample, Batch> | PrefetchLoader<Batch>>> {
  const opened = options.backend && options.communicator ? undefined : await openDevice(options.device ?? deviceOf(options.backend));
  const communicator = options.communicator ?? (await opened!.connect());
  try {
    const { config, completed } = readyConfig(options, communicator.size);
    const backend = options.backend ?? opened!.backend;
    await refuseWhatCannotFit(completed, config, communicator.size, backend);
    const device = new Device(backend);
    const observability = new Observability(config, device, communicator, opened?.name);
    const parts = await engineParts(completed, config, device, observability.communicator, options.communicator === undefined);
    const { optimizer, dataloader, scheduler } = parts;
    return { engine: new DeepSpeedEngine(parts, observability), optimizer, dataloader, scheduler };
  } catch (error) {
    if (!options.communicator) await communicator.close();
    throw error;
  }
}

/** The config of a run, and the options with what `completeConfig` made of them. */
function readyConfig<Sample>(options: InitializeOptions<Sample>, worldSize: number) {
  const source = readConfig(options.config);
  const { locate } = source;
  const isObject = typeof source.raw === 'object' && source.raw !== null && !Array.isArray(source.raw);
  if (!options.completeConfig || !isObject) return { config: checkedConfig(source, worldSize), completed: options };
  const { config: raw, schedule } = options.completeConfig(source.raw as Record<string, unknown>, { worldSize, locate });
  const completed = { ...options, config: raw, ...(schedule && { schedule }) };
  return { config: checkedConfig({ raw, ...(locate && { locate }) }, worldSize), completed };
}

/** Where a backend of the caller's comes without a communicator: what connects ranks of its kind. */
function deviceOf(backend: Backend | undefined): DeviceName | undefined {
  return backend && (backend.name === 'cuda' ? 'cuda' : 'cpu');
}
