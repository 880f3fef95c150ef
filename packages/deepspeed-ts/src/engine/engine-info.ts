import type { BatchInfo, Communicator, Device, FloatDType } from '@deepspeed-ts/core';
import type { DeepSpeedConfig } from '../config/index.js';
import type { LossScaler } from '../precision/index.js';
import type { LRScheduler } from '../schedules/index.js';
import type { LiveParts } from './live-parts.js';
import type { EngineOptimizer } from './optimizer.js';
import type { EngineParts, TrainableModel } from './parts.js';
import { type StepObserver, Training } from './training.js';

/** What can be asked of an engine, at any time and on any rank by itself. */
export abstract class EngineInfo {
  protected readonly parts: LiveParts;
  protected readonly training: Training;

  protected constructor(parts: EngineParts, observer: StepObserver) {
    this.parts = { ...parts };
    this.training = new Training(this.parts, observer);
  }

  get model(): TrainableModel {
    return this.parts.model;
  }

  /** Every value in force, defaults included, and batch sizes as they were set since. */
  get config(): DeepSpeedConfig {
    return this.parts.config;
  }

  get device(): Device {
    return this.parts.device;
  }

  get communicator(): Communicator {
    return this.parts.communicator;
  }

  get optimizer(): EngineOptimizer {
    return this.parts.optimizer;
  }

  get scheduler(): LRScheduler | undefined {
    return this.parts.scheduler;
  }

  get lossScaler(): LossScaler {
    return this.parts.lossScaler;
  }

  get rank(): number {
    return this.communicator.rank;
  }

  get worldSize(): number {
    return this.communicator.size;
  }

  /** Optimizer steps so far, skipped ones included. */
  get globalSteps(): number {
    return this.training.globalSteps;
  }

  /** Steps that changed nothing, because a gradient was not finite. */
  get skippedSteps(): number {
    return this.training.skippedSteps;
  }

  /** What the next backward pass multiplies the loss with; 1 but for fp16. */
  get lossScale(): number {
    return this.lossScaler.scale;
  }

  /** Samples of all ranks that finished steps have used. */
  get globalSamples(): number {
    return this.training.globalSamples;
  }

  /** Micro-batches so far on this rank. */
  get microSteps(): number {
    return this.training.microSteps;
  }

  /** The gradient norm of the last step over all ranks, before clipping; NaN before the first. */
  get globalGradNorm(): number {
    return this.training.gradNorm;
  }

  /** The norm that gradients are scaled down to; 0 where they are not clipped. */
  get gradientClipping(): number {
    return this.config.gradient_clipping;
  }

  /** Learning rate of the next step, by parameter group. */
  get lr(): number[] {
    return this.optimizer.lr;
  }

  /** As `lr`. */
  getLr(): number[] {
    return this.optimizer.lr;
  }

  /** By parameter group: both betas, or the momentum of SGD. */
  getMom(): (number | readonly [number, number] | undefined)[] {
    return this.optimizer.momentum;
  }

  /** The optimizer's name. */
  getType(): string {
    return this.optimizer.type;
  }

  /** What the optimizer keeps beside weights, such as 'exp_avg': names for `optimizerState` and `debug`. */
  get optimizerStateNames(): readonly string[] {
    return this.parts.store.stateNames;
  }

  getBatchInfo(): BatchInfo {
    const { train_batch_size, train_micro_batch_size_per_gpu, gradient_accumulation_steps } = this.config;
    return {
      trainBatchSize: train_batch_size,
      trainMicroBatchSizePerGpu: train_micro_batch_size_per_gpu,
      gradientAccumulationSteps: gradient_accumulation_steps,
    };
  }

  /** Dtypes of weights in forward and backward, and of gradients. Master weights and optimizer state are the optimizer's. */
  getDataTypes(): { readonly weights: FloatDType; readonly gradients: FloatDType } {
    return { weights: this.parts.store.dtype, gradients: this.parts.store.gradientDtype };
  }

  /** Whether the last `step()` updated the weights: not in the middle of an accumulation, and not where gradients overflowed. */
  wasStepApplied(): boolean {
    return this.training.stepApplied;
  }

  /** Whether the micro-batch that runs now, or comes next, is the last of its step. */
  isGradientAccumulationBoundary(): boolean {
    return this.training.isBoundary;
  }

  /** False after `eval()`. */
  get isTraining(): boolean {
    return this.training.dropout;
  }
}
