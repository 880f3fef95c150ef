import { type Batch, type CheckpointedEngine, type Dataset, DeepSpeedError, type Tensor } from '@deepspeed-ts/core';
import { Checkpointer } from '../checkpoint/checkpointer.js';
import type { LoadCheckpointOptions, LoadedCheckpoint, SaveCheckpointOptions, SavedCheckpoint } from '../checkpoint/options.js';
import type { Counters } from '../checkpoint/progress.js';
import type { BatchTriad } from '../config/batch.js';
import { DataLoader, type DataLoaderOptions } from '../data/index.js';
import type { CommunicationLog } from '../observe/comms/communication-log.js';
import { Observability } from '../observe/observability.js';
import type { ModelProfile } from '../observe/profile/profile.js';
import { skipsOverflow } from '../precision/index.js';
import { drawFrom } from './batch.js';
import { DebugAccess } from './debug.js';
import { EngineInfo } from './engine-info.js';
import { NonFiniteError } from './errors.js';
import { withBatchSize, withMicroBatchSize } from './live-parts.js';
import type { EngineParts } from './parts.js';
import { type EngineReport, formatReport, memoryByKind } from './report.js';
import { type Save16bitModelOptions, saveModel } from './save-model.js';

export type { TrainableModel } from './parts.js';

/** Trains a model as its config says. Made by `initialize`. */
export class DeepSpeedEngine extends EngineInfo implements CheckpointedEngine {
  /** Weights, gradients and optimizer state of single parameters, to look at and to change. */
  readonly debug: DebugAccess;
  readonly #checkpointer: Checkpointer;
  readonly #observability: Observability;
  #lossValue = Number.NaN;

  constructor(parts: EngineParts, observability = new Observability(parts.config, parts.device, parts.communicator)) {
    super(parts, observability);
    this.#observability = observability;
    observability.attach(parts.model, () => this.globalSteps);
    if (this.scheduler) this.optimizer.follow(this.scheduler);
    const { training } = this;
    this.debug = new DebugAccess(this.parts, training);
    const counters = { get: () => training.counters, set: (next: Counters) => (training.counters = next) };
    this.#checkpointer = new Checkpointer(Object.assign(this.parts, { counters }));
  }

  /** Training mode: forward passes drop activations. */
  train(on = true): this {
    this.training.dropout = on;
    return this;
  }

  /** Evaluation mode: nothing is dropped, in `trainBatch` neither. Gradients are still recorded; `noGrad` or `evalBatch` saves their memory. */
  eval(): this {
    return this.train(false);
  }

  /** The loss belongs to the engine, until the next forward pass. */
  forward(batch: Batch): Tensor {
    return this.training.forward(batch);
  }

  /**
   * Gradients of the loss, which may be any that the model computed, added to those of the step so far. Where it throws, the gradients of
   * the micro-batches before it in this step are dropped too, and the step begins anew.
   *
   * @param options.scaleWrtGas - Divide by the accumulation steps, so that a step sees the mean over its micro-batches. Default true.
   */
  backward(loss: Tensor, { scaleWrtGas = true }: { scaleWrtGas?: boolean } = {}): void {
    this.training.backward(loss, scaleWrtGas);
  }

  /** Drops the gradients of the step so far; it begins anew. Every rank calls it. */
  zeroGrad(): void {
    this.training.abandonStep();
  }

  /**
   * Runs `body` without reducing the gradients of its backward passes over ranks: they add up on each rank, and the next pass outside, or the
   * step, reduces the sum. Saves communication and costs a whole gradient on each rank, at stages 2 and 3 as well (where DeepSpeed refuses
   * it). All stages give the same bits; those of reducing each micro-batch differ by rounding. Every rank does alike. `step()` inside counts
   * micro-batches and is refused where it would end a step.
   */
  noSync<T>(body: () => T): T {
    return this.training.unreduced(body);
  }

  /** Runs `body` with several backward passes and reduces the sum of their gradients once, at its end. Every rank does alike. */
  coalesceGradReduction<T>(body: () => T): T {
    return this.training.coalesced(body);
  }

  /**
   * Says of this micro-batch and all that follow whether they are the last of a step, whatever their number; `undefined` lets
   * gradient_accumulation_steps decide again. The loss is still divided by that; see `scaleWrtGas` of `backward`.
   */
  setGradientAccumulationBoundary(boundary: boolean | undefined): void {
    this.training.setBoundary(boundary);
  }

  /**
   * Samples of a step from here on, through the number of micro-batches in it. Every rank calls it, between steps.
   *
   * @throws DeepSpeedError in the middle of a step, and for what is no multiple of the micro-batches of all ranks
   */
  setTrainBatchSize(samples: number): void {
    this.#resize('setTrainBatchSize', withBatchSize(this.parts, samples));
  }

  /**
   * Samples of a micro-batch from here on; train_batch_size follows, and so does the loader of `trainingData`. Every rank calls it, between steps.
   *
   * @throws DeepSpeedError in the middle of a step, and for what is no size
   */
  setTrainMicroBatchSize(samples: number): void {
    this.#resize('setTrainMicroBatchSize', withMicroBatchSize(this.parts, samples));
  }

  /** The learning rate of all parameter groups, or of each, until the schedule moves it after the next step. Every rank sets the same. */
  setLr(lr: number | readonly number[]): void {
    this.optimizer.setLr(lr);
  }

  /** A loader for more data of your own, sharded over the ranks in micro-batches of this engine's size. */
  deepspeedIo<Sample>(data: Dataset<Sample>, options: Partial<DataLoaderOptions<Sample, Batch>> = {}): DataLoader<Sample, Batch> {
    return new DataLoader<Sample, Batch>(data, {
      batchSize: this.config.train_micro_batch_size_per_gpu,
      seed: this.training.seed,
      dropLast: this.config.dataloader_drop_last,
      rank: this.rank,
      worldSize: this.worldSize,
      ...options,
    });
  }

  /** Lets go of the weights that stage 3 has gathered; they are gathered again when they are used. */
  emptyPartitionCache(): void {
    this.parts.store.releaseGathered();
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
    await this.training.endMicroBatch();
    if (!boundary) return;
    await this.#stepEnded();
    if (!this.#prints) return;
    const { loss } = this.training;
    if (loss) this.#lossValue = await loss.item();
    this.#print();
  }

  /**
   * Without an argument it draws from the loader of `trainingData`. Where it throws, the step was not taken, and the next call begins one
   * anew: a bad batch may be caught and left out, if all ranks do so.
   */
  async trainBatch(batches?: Iterable<Batch> | Iterator<Batch>): Promise<number> {
    this.training.assertCounting('trainBatch');
    const next = batches ? drawFrom(batches, this.config.gradient_accumulation_steps) : () => this.#draw();
    const losses: Tensor[] = [];
    try {
      await this.training.accumulate(next, losses);
      const mean = this.#mean(losses);
      const step = this.training.endMicroBatch();
      // The loss is the better message where both are not finite, so it is looked at first; the step is always awaited.
      const [loss, applied] = await Promise.allSettled([mean, step]);
      if (loss.status === 'rejected') throw loss.reason;
      const skipped = skipsOverflow(this.config) && !this.wasStepApplied();
      if (!Number.isFinite(loss.value) && !skipped)
        throw new NonFiniteError(this.rank, this.globalSteps, 'loss', loss.value, applied.status === 'fulfilled');
      if (applied.status === 'rejected') throw applied.reason;
      this.#lossValue = loss.value;
      await this.#stepEnded(loss.value);
      if (this.#prints) this.#print();
      return loss.value;
    } finally {
      for (const loss of losses) loss.dispose();
    }
  }

  /** The loss of one micro-batch of this rank, f32 [], with nothing dropped and no trace of it. The caller disposes it. */
  evaluate(batch: Batch): Tensor {
    return this.training.evaluate(batch);
  }

  async evalBatch(batch: Batch): Promise<number> {
    const loss = this.training.evaluate(batch);
    try {
      return await this.#mean([loss]);
    } finally {
      loss.dispose();
    }
  }

  /** The state of things on this rank. */
  report(): EngineReport {
    const { reserved, peak } = this.device.backend.memory();
    const wallClock = this.#observability.wallClock?.take();
    const checkpoints = this.training.takeCheckpointTimes();
    return {
      step: this.globalSteps,
      loss: this.#lossValue,
      gradNorm: this.globalGradNorm,
      lr: this.lr[0]!,
      lossScale: this.lossScale,
      skippedSteps: this.skippedSteps,
      ...this.#observability.rates(),
      memory: memoryByKind(this.device),
      device: { reserved, peak },
      ...(wallClock && { wallClock }),
      ...(checkpoints && { checkpoints }),
    };
  }

  /** What collectives cost, with `comms_logger`: `summary()` says it on rank 0. */
  get communication(): CommunicationLog {
    return this.#observability.communication;
  }

  /** Profiles the next whole step of this rank, module by module: FLOPs, time, parameters. Resolves when that step has ended. */
  profile(): Promise<ModelProfile> {
    return this.#observability.nextProfile();
  }

  /** Master weights in f32 by name, streamed: every rank must run through all of them. */
  weights() {
    return this.parts.store.export('weights');
  }

  /** One optimizer state ('exp_avg', 'exp_avg_sq') by parameter name, streamed: every rank must run through all of it. */
  optimizerState(kind: string) {
    return this.parts.store.export(kind);
  }

  /**
   * Writes f32 weights and `config.json` as Hugging Face libraries read them. Every rank calls it; rank 0 writes. No rank ever holds more
   * than one unit. What was there before stays until the new files are whole.
   *
   * @throws CheckpointError on every rank when they can't be written
   */
  async saveModel(directory: string, huggingFaceConfig?: Readonly<Record<string, unknown>>): Promise<void> {
    await saveModel(directory, this.parts, 'f32', { huggingFaceConfig });
  }

  /** The same in 16 bits, of which each weight is the nearest: in the dtype that the run computes in, bf16 for one in f32. */
  async save16bitModel(directory: string, options: Save16bitModelOptions = {}): Promise<void> {
    const { dtype } = this.parts.store;
    await saveModel(directory, this.parts, options.dtype ?? (dtype === 'f32' ? 'bf16' : dtype), options);
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
    this.training.dropLoss();
    try {
      this.parts.fp8?.dispose();
      this.parts.store.dispose();
      this.model.dispose();
    } finally {
      await this.#checkpointer
        .dispose()
        .finally(() => this.parts.dataloader?.dispose?.())
        .finally(() => this.#observability.close())
        .finally(() => (this.parts.ownsCommunicator ? this.communicator.close() : undefined));
    }
  }

  #resize(method: string, sizes: BatchTriad): void {
    if (!this.training.isBetweenSteps)
      throw new DeepSpeedError(
        'ERR_BATCH_SIZE',
        `[${method}] rank ${this.rank} is in the middle of a step; call it after step(), or zeroGrad()`,
      );
    if (sizes.train_micro_batch_size_per_gpu !== this.config.train_micro_batch_size_per_gpu)
      this.parts.dataloader?.setBatchSize(sizes.train_micro_batch_size_per_gpu);
    this.parts.config = Object.freeze({ ...this.config, ...sizes });
  }

  #draw(): Batch | Promise<Batch> {
    const { dataloader } = this.parts;
    if (!dataloader)
      throw new DeepSpeedError('ERR_DATA', '[trainBatch] there is nothing to draw from: give it batches, or initialize() trainingData');
    return dataloader.next();
  }

  /** Mean of scalars over themselves and over ranks. */
  async #mean(losses: readonly Tensor[]): Promise<number> {
    const own = losses.map((loss) => loss.retain());
    try {
      for (const loss of own) this.communicator.allReduce(loss, 'mean', 'loss').wait();
      const values = await Promise.all(own.map((loss) => loss.item()));
      return values.reduce((sum, value) => sum + value, 0) / values.length;
    } finally {
      for (const loss of own) loss.dispose();
    }
  }

  #stepEnded(loss?: number): Promise<void> {
    const { globalSamples: samples, lossScale, lr } = this;
    return this.#observability.stepEnded({ samples, lossScale, lr: lr[0]!, ...(loss !== undefined && { loss }) });
  }

  #print(): void {
    const { memory_breakdown: memory, timers } = this.config;
    this.#observability.log.info(formatReport(this.report(), { memory, rates: timers.throughput.enabled }));
  }

  /** Whether this rank reports after the step that has just ended. */
  get #prints(): boolean {
    const every = this.config.steps_per_print;
    return Boolean(every) && this.globalSteps % every! === 0 && this.rank === 0;
  }
}
