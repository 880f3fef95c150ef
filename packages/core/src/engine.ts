import type { Communicator } from './comm/communicator.js';
import type { ConfigPath } from './config/index.js';
import type { Batch, BatchLoader, TrainingData } from './data.js';
import type { FloatDType } from './dtype.js';
import type { Module } from './nn/module.js';
import type { Parameter } from './nn/parameter.js';
import type { Device } from './tensor/device.js';
import type { Tensor } from './tensor/tensor.js';

/** What trainers and RLHF loops know of an engine: one training step, whatever is sharded, offloaded or quantised beneath it. */
export interface TrainingEngine<Batch> {
  readonly communicator: Communicator;
  readonly device: Device;
  /** Optimizer steps so far, skipped ones included. */
  readonly globalSteps: number;
  /** Learning rate of the next step, by parameter group. */
  readonly lr: readonly number[];
  /** The gradient norm of the last step over all ranks, before clipping; NaN before the first. */
  readonly globalGradNorm: number;
  /** The loss of one micro-batch, f32 []. Stays the engine's: valid until the next `forward`. */
  forward(batch: Batch): Tensor;
  /** Gradients of the loss, reduced over ranks; divided by the accumulation steps unless `scaleWrtGas` is false. */
  backward(loss: Tensor, options?: { scaleWrtGas?: boolean }): void;
  /** Ends a micro-batch; on the last one of a step, updates the weights. */
  step(): Promise<void>;
  isGradientAccumulationBoundary(): boolean;
  /** Says of this micro-batch and all that follow whether they are the last of a step; `undefined` lets the config decide again. */
  setGradientAccumulationBoundary(boundary: boolean | undefined): void;
  /** A whole step: all its micro-batches. Resolves to the loss, averaged over them and over ranks. */
  trainBatch(batches: Iterable<Batch> | Iterator<Batch>): Promise<number>;
  /** The loss without training, averaged over ranks. */
  evalBatch(batch: Batch): Promise<number>;
  /** The loss of one micro-batch of this rank without training, f32 []: nothing is dropped, recorded or read back. The caller disposes it. */
  evaluate(batch: Batch): Tensor;
  /** Gives everything back. Every rank calls it. */
  dispose(): Promise<void>;
}

/** The sizes of a step, in samples. */
export interface BatchInfo {
  /** Of all ranks. */
  readonly trainBatchSize: number;
  readonly trainMicroBatchSizePerGpu: number;
  readonly gradientAccumulationSteps: number;
}

/** An engine whose state can be saved and gone on from. Every rank makes these calls, and they fail on every rank or on none. */
export interface CheckpointedEngine extends TrainingEngine<Batch> {
  getBatchInfo(): BatchInfo;
  /** Resolves once the state is copied; `finished` once it is safe in `directory/tag`. */
  saveCheckpoint(
    directory: string,
    options?: { readonly tag?: string; readonly clientState?: unknown; readonly files?: Readonly<Record<string, string>> },
  ): Promise<{ readonly path: string; readonly finished: Promise<void> }>;
  /** `undefined` where `directory` names no latest checkpoint. */
  loadCheckpoint(
    directory: string,
    options?: { readonly tag?: string; readonly moduleOnly?: boolean },
  ): Promise<{ readonly path: string; readonly clientState: unknown } | undefined>;
  /** Dtypes of weights in forward and backward, and of gradients. */
  getDataTypes(): { readonly weights: FloatDType; readonly gradients: FloatDType };
  /** Weights in f32 and config.json, as Hugging Face libraries read them. */
  saveModel(directory: string): Promise<void>;
  /** The same in 16 bits. */
  save16bitModel(directory: string): Promise<void>;
}

/**
 * Learning rates by optimizer step. The iteration of the first step is -1, of the second 0: the index of the last step that was made, as
 * DeepSpeed counts.
 */
export interface LearningRates {
  /** @param baseLr - The learning rate of the parameter group in the optimizer's own settings. */
  lr(iteration: number, baseLr: number): number;
}

/** What is known where a config is completed. */
export interface ConfigPlace {
  readonly worldSize: number;
  /** Where a path stands in the config's text, such as `ds_config.json:3:5`; for messages. */
  readonly locate?: ((path: ConfigPath) => string | undefined) | undefined;
}

/** A config with what a trainer knows filled in, and a schedule for one that names none. */
export interface CompletedConfig {
  readonly config: Readonly<Record<string, unknown>>;
  readonly schedule?: LearningRates | undefined;
}

/** What a trainer asks of whoever makes its engine. */
export interface TrainingSetup<Sample> {
  readonly model: Module<[never], Tensor>;
  /** A DeepSpeed config: an object, the path of a JSON or HJSON file, or JSON in base64. */
  readonly config: string | object;
  /** Called with the config as it is written, before it is checked. */
  readonly completeConfig?: (raw: Readonly<Record<string, unknown>>, place: ConfigPlace) => CompletedConfig;
  readonly trainingData?: TrainingData<Sample>;
  /** Micro-batches that are loaded ahead of training. */
  readonly prefetch?: number;
  readonly collate?: (samples: readonly Sample[]) => Batch;
  /** Settings by parameter that differ from the optimizer's. */
  readonly parameterGroups?: (name: string, parameter: Parameter) => { readonly weightDecay?: number } | undefined;
  readonly device?: 'cpu' | 'cuda';
  /** Of dropout, shuffling and initial weights. */
  readonly seed?: number;
}

/** Prepares a model for training as a config says, on this rank of the run: `initialize` of the meta package, for those who may not know it. */
export type Initialize = <Sample>(
  setup: TrainingSetup<Sample>,
) => Promise<{ readonly engine: CheckpointedEngine; readonly dataloader: BatchLoader | undefined }>;
