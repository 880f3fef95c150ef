import type { Device, Fp8Training } from '@deepspeed-ts/core';
import type { ZeroStore } from '@deepspeed-ts/zero';
import type { DeepSpeedConfig } from '../config/index.js';
import type { DataLoaderState } from '../data/index.js';
import type { EngineOptimizer } from '../engine/optimizer.js';
import type { TrainableModel } from '../engine/parts.js';
import type { LossScaler } from '../precision/index.js';
import type { LRScheduler } from '../schedules/index.js';
import type { Counters } from './progress.js';

/** What of an engine goes into a checkpoint. */
export interface CheckpointedParts {
  readonly model: TrainableModel;
  readonly config: DeepSpeedConfig;
  readonly device: Device;
  readonly store: ZeroStore<never>;
  readonly optimizer: EngineOptimizer;
  readonly scheduler: LRScheduler | undefined;
  readonly lossScaler: LossScaler;
  readonly fp8?: Fp8Training | undefined;
  readonly dataloader: { stateDict(): DataLoaderState; loadStateDict(state: DataLoaderState): void } | undefined;
  /** The engine's counters, which are its own. */
  readonly counters: { get(): Counters; set(counters: Counters): void };
}
