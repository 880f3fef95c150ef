import type { Batch, Communicator, Device, Fp8Training, Module, Tensor } from '@deepspeed-ts/core';
import type { OptimizerOptions, ZeroStore } from '@deepspeed-ts/zero';
import type { DeepSpeedConfig } from '../config/index.js';
import type { DataLoaderState } from '../data/index.js';
import type { LossScaler } from '../precision/index.js';
import type { LRScheduler } from '../schedules/index.js';
import type { EngineOptimizer } from './optimizer.js';

/** Draws micro-batches and can tell where it stands. */
export interface BatchSource {
  next(): Batch | Promise<Batch>;
  /** Samples of the micro-batches from here on. */
  setBatchSize(samples: number): void;
  stateDict(): DataLoaderState;
  loadStateDict(state: DataLoaderState): void;
  /** Ends what loads ahead. */
  dispose?(): Promise<void>;
}

/** A model whose `forward` takes a micro-batch on the device and gives its loss, f32 []. */
export type TrainableModel = Module<[never], Tensor>;

/** What an engine is made of; `initialize` puts it together. */
export interface EngineParts {
  readonly model: TrainableModel;
  readonly config: DeepSpeedConfig;
  readonly device: Device;
  readonly communicator: Communicator;
  readonly store: ZeroStore<OptimizerOptions>;
  readonly optimizer: EngineOptimizer;
  readonly scheduler: LRScheduler | undefined;
  readonly lossScaler: LossScaler;
  /** Present when linear layers multiply in 8 bits. */
  readonly fp8?: Fp8Training | undefined;
  readonly dataloader: BatchSource | undefined;
  readonly seed: number;
  /** Closed by `dispose` when the engine opened it. */
  readonly ownsCommunicator: boolean;
}
