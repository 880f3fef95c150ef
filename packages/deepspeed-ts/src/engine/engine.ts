import { type Communicator, DeepSpeedError, type Device, type Tensor, type TrainingEngine } from '@deepspeed-ts/core';
import type { OptimizerOptions, ZeroStore } from '@deepspeed-ts/zero';
import { Checkpointer } from '../checkpoint/checkpointer.js';
import type { LoadCheckpointOptions, LoadedCheckpoint, SaveCheckpointOptions, SavedCheckpoint } from '../checkpoint/options.js';
import type { DeepSpeedConfig } from '../config/index.js';
import { type LossScaler, skipsOverflow } from '../precision/index.js';
import type { LRScheduler } from '../schedules/index.js';
import type { Batch } from './batch.js';
import { NonFiniteError } from './errors.js';
import type { EngineOptimizer } from './optimizer.js';
import type { EngineParts, TrainableModel } from './parts.js';
import { type EngineReport, formatReport, memoryByKind, Throughput } from './report.js';
import { saveModel } from './save-model.js';
import { drawFrom, Training } from './training.js';
import { WallClock } from './wall-clock.js';

export type { TrainableModel } from './parts.js';

/** Trains a model as its config says. Made by `initialize`. */
export class DeepSpeedEngine implements TrainingEngine<Batch> {
  readonly model: TrainableModel;
  /** Every value in force, defaults included. */
  readonly config: DeepSpeedConfig;
  readonly device: Device;
  readonly communicator: Communicator;
  readonly optimizer: EngineOptimizer;
  readonly scheduler: LRScheduler | undefined;
  readonly lossScaler: LossScaler;
  readonly #parts: EngineParts;
  readonly #store: ZeroStore<OptimizerOptions>;
  readonly #training: Training;
  readonly #checkpointer: Checkpointer;
  readonly #throughput = new Throughput();
  readonly #wallClock: WallClock | undefined;
  #lossValue = Number.NaN;

  constructor(parts: EngineParts) {
    this.model = parts.model;
    this.config = parts.config;
    this.device = parts.device;
    this.communicator = parts.communicator;
    this.optimizer = parts.optimizer;
    this.scheduler = parts.scheduler;
    this.lossScaler = parts.lossScaler;
    this.#parts = parts;
    this.#store = parts.store;
    const wallClock = parts.config.wall_clock_breakdown ? new WallClock() : undefined;
    this.#wallClock = wallClock;
    const training = new Training(parts, {
      timed: (phase, body, probe) => (wallClock ? wallClock.time(phase, body, probe) : body()),
      stepped: () => this.#throughput.add(this.config.train_batch_size),
    });
    this.#training = training;
    if (this.scheduler) this.optimizer.follow(this.scheduler);
    this.#checkpointer = new Checkpointer({
      ...parts,
      counters: { get: () => training.counters, set: (counters) => (training.counters = counters) },
    });
  }

  get rank(): number {
    return this.communicator.rank;
  }

  get worldSize(): number {
    return this.communicator.size;
  }

  /** Optimizer steps so far, skipped ones included. */
  get globalSteps(): number {
    return this.#training.globalSteps;
  }

  /** Steps that changed nothing, because a gradient was not finite. */
  get skippedSteps(): number {
    return this.#training.skippedSteps;
  }

  /** What the next backward pass multiplies the loss with; 1 but for fp16. */
  get lossScale(): number {
    return this.lossScaler.scale;
  }

  /** Samples of all ranks that finished steps have used. */
  get globalSamples(): number {
    return this.globalSteps * this.config.train_batch_size;
  }

  /** Micro-batches so far on this rank. */
  get microSteps(): number {
    return this.#training.microSteps;
  }

  /** Learning rate of the next step, by parameter group. */
  get lr(): number[] {
    return this.optimizer.lr;
  }

  /** The gradient norm of the last step over all ranks, before clipping; NaN before the first. */
  get globalGradNorm(): number {
    return this.#training.gradNorm;
  }

  /** Whether the last `step()` updated the weights: not in the middle of an accumulation, and not where gradients overflowed. */
  wasStepApplied(): boolean {
    return this.#training.stepApplied;
  }

  isGradientAccumulationBoundary(): boolean {
    return this.#training.isBoundary;
  }

  /** The loss belongs to the engine, until the next forward pass. */
  forward(batch: Batch): Tensor {
    return this.#training.forward(batch);
  }

  /** Where it throws, the gradients of the micro-batches before it in this step are dropped too, and the step begins anew. */
  backward(loss: Tensor): void {
    this.#training.backward(loss);
  }

  /**
   * Ends a micro-batch. On the last one of a step it clips, updates the weights and moves the schedule.
   *
   * A gradient norm that is not finite leaves weights, optimizer state and schedule untouched on every rank. In fp16 the step is skipped
   * then and the loss scale falls; elsewhere it is an error, unless `bf16.check_grad_overflow` says to skip.
   *
   * @throws NonFiniteError on every rank, when the gradient norm is not finite and the config does not say to skip
   * @throws LossScaleError on every rank, when gradients overflow at the smallest loss scale
   */
  async step(): Promise<void> {
    const boundary = this.isGradientAccumulationBoundary();
    await this.#training.endMicroBatch();
    if (!boundary || !this.#prints) return;
    const { loss } = this.#training;
    if (loss) this.#lossValue = await loss.item();
    console.log(formatReport(this.report()));
  }

  /**
   * Without an argument it draws from the loader of `trainingData`. Where it throws, the step was not taken, and the next call begins one
   * anew: a bad batch may be caught and left out, if all ranks do so.
   */
  async trainBatch(batches?: Iterable<Batch> | Iterator<Batch>): Promise<number> {
    const next = batches ? drawFrom(batches, this.config.gradient_accumulation_steps) : () => this.#draw();
    const losses: Tensor[] = [];
    try {
      await this.#training.accumulate(next, losses);
      const mean = this.#mean(losses);
      const step = this.#training.endMicroBatch();
      // The loss is the better message where both are not finite, so it is looked at first; the step is always awaited.
      const [loss, applied] = await Promise.allSettled([mean, step]);
      if (loss.status === 'rejected') throw loss.reason;
      const skipped = skipsOverflow(this.config) && !this.wasStepApplied();
      if (!Number.isFinite(loss.value) && !skipped)
        throw new NonFiniteError(this.rank, this.globalSteps, 'loss', loss.value, applied.status === 'fulfilled');
      if (applied.status === 'rejected') throw applied.reason;
      this.#lossValue = loss.value;
      if (this.#prints) console.log(formatReport(this.report()));
      return loss.value;
    } finally {
      for (const loss of losses) loss.dispose();
    }
  }

  async evalBatch(batch: Batch): Promise<number> {
    const loss = this.#training.evaluate(batch);
    try {
      return await this.#mean([loss]);
    } finally {
      loss.dispose();
    }
  }

  /** The state of things on this rank. */
  report(): EngineReport {
    const { reserved, peak } = this.device.backend.memory();
    const wallClock = this.#wallClock?.take();
    return {
      step: this.globalSteps,
      loss: this.#lossValue,
      gradNorm: this.globalGradNorm,
      lr: this.lr[0]!,
      lossScale: this.lossScale,
      skippedSteps: this.skippedSteps,
      samplesPerSecond: this.#throughput.take(),
      memory: memoryByKind(this.device),
      device: { reserved, peak },
      ...(wallClock && { wallClock }),
    };
  }

  /** Master weights in f32 by name, streamed: every rank must run through all of them. */
  weights() {
    return this.#store.export('weights');
  }

  /** One optimizer state ('exp_avg', 'exp_avg_sq') by parameter name, streamed: every rank must run through all of it. */
  optimizerState(kind: string) {
    return this.#store.export(kind);
  }

  /**
   * Writes `model.safetensors` and `config.json` as Hugging Face libraries read them. Every rank calls it; rank 0 writes. No rank
   * ever holds more than one unit.
   */
  async saveModel(directory: string, huggingFaceConfig?: Readonly<Record<string, unknown>>): Promise<void> {
    await saveModel(directory, { engine: this, ...(huggingFaceConfig && { huggingFaceConfig }) });
  }

  /**
   * Saves all that a run needs to go on exactly where it is: weights as a Hugging Face directory, and beside them optimizer state, schedule,
   * counters and the place in the data. Every rank calls it, after a `step()`. Resolves once the state is copied to the host: training goes on
   * while it is written to `directory/tag`, and `finished` of the result tells when that is safe on disk. A save waits for the one before.
   *
   * @throws CheckpointError on every rank: bad arguments, a directory that can't be written, or what went wrong with the last save
   */
  saveCheckpoint(directory: string, options?: SaveCheckpointOptions): Promise<SavedCheckpoint> {
    return this.#checkpointer.save(directory, options);
  }

  /**
   * Goes on from a checkpoint, whatever stage, number of ranks and precision it was saved with; by default from the one that `latest` names.
   * Every rank calls it. `undefined` where there is no `latest`.
   *
   * @throws CheckpointError on every rank, with the engine untouched, when the checkpoint is missing, damaged or does not fit
   */
  loadCheckpoint(directory: string, options?: LoadCheckpointOptions): Promise<LoadedCheckpoint | undefined> {
    return this.#checkpointer.load(directory, options);
  }

  /** Waits for a save that is under way, then gives everything back, the model's own tables included; the model may be used again. @throws CheckpointError when that save failed and nobody was told */
  async dispose(): Promise<void> {
    this.#training.dropLoss();
    try {
      this.#parts.fp8?.dispose();
      this.#store.dispose();
      this.model.dispose();
    } finally {
      await this.#checkpointer.settle().finally(() => (this.#parts.ownsCommunicator ? this.communicator.close() : undefined));
    }
  }

  #draw(): Batch {
    const { dataloader } = this.#parts;
    if (!dataloader)
      throw new DeepSpeedError('ERR_DATA', '[trainBatch] there is nothing to draw from: give it batches, or initialize() trainingData');
    return dataloader.next();
  }

  /** Mean of scalars over themselves and over ranks. */
  async #mean(losses: readonly Tensor[]): Promise<number> {
    const own = losses.map((loss) => loss.retain());
    try {
      for (const loss of own) this.communicator.allReduce(loss, 'mean').wait();
      const values = await Promise.all(own.map((loss) => loss.item()));
      return values.reduce((sum, value) => sum + value, 0) / values.length;
    } finally {
      for (const loss of own) loss.dispose();
    }
  }

  /** Whether this rank reports after the step that has just ended. */
  get #prints(): boolean {
    const every = this.config.steps_per_print;
    return Boolean(every) && this.globalSteps % every! === 0 && this.rank === 0;
  }
}
