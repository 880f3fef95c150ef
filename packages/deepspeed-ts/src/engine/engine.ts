import {
  backward,
  type Communicator,
  DeepSpeedError,
  type Device,
  type Fp8Training,
  full,
  type Module,
  noGrad,
  type Parameter,
  scope,
  type Tensor,
  type TrainingEngine,
  withRandom,
} from '@deepspeed-ts/core';
import type { OptimizerOptions, ZeroStore } from '@deepspeed-ts/zero';
import { Checkpointer } from '../checkpoint/checkpointer.js';
import type { LoadCheckpointOptions, LoadedCheckpoint, SaveCheckpointOptions, SavedCheckpoint } from '../checkpoint/options.js';
import type { Counters } from '../checkpoint/progress.js';
import type { DeepSpeedConfig } from '../config/index.js';
import type { DataLoaderState } from '../data/index.js';
import { type LossScaler, skipsOverflow } from '../precision/index.js';
import type { LRScheduler } from '../schedules/index.js';
import { type Batch, toDevice } from './batch.js';
import { LossScaleError, NonFiniteError } from './errors.js';
import type { EngineOptimizer } from './optimizer.js';
import { type EngineReport, formatReport, memoryByKind, Throughput } from './report.js';
import { saveModel } from './save-model.js';
import { type Phase, WallClock } from './wall-clock.js';

/** Draws micro-batches and can tell where it stands. */
export interface BatchSource {
  next(): Batch;
  stateDict(): DataLoaderState;
  loadStateDict(state: DataLoaderState): void;
}

/** A model whose `forward` takes a micro-batch on the device and gives its loss, f32 []. */
export type TrainableModel = Module<[never], Tensor>;

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
  readonly #store: ZeroStore<OptimizerOptions>;
  readonly #dataloader: BatchSource | undefined;
  readonly #fp8: Fp8Training | undefined;
  readonly #checkpointer: Checkpointer;
  readonly #ownsCommunicator: boolean;
  readonly #throughput = new Throughput();
  readonly #wallClock: WallClock | undefined;
  #seed: number;
  #microSteps = 0;
  #globalSteps = 0;
  #skippedSteps = 0;
  #stepApplied = false;
  /** The loss scale that backward passes since the last step began with. */
  #backwardScale: number | undefined;
  #loss: Tensor | undefined;
  #lossValue = Number.NaN;
  #gradNorm = Number.NaN;

  constructor(parts: EngineParts) {
    this.model = parts.model;
    this.config = parts.config;
    this.device = parts.device;
    this.communicator = parts.communicator;
    this.optimizer = parts.optimizer;
    this.scheduler = parts.scheduler;
    this.lossScaler = parts.lossScaler;
    this.#store = parts.store;
    this.#dataloader = parts.dataloader;
    this.#fp8 = parts.fp8;
    this.#seed = parts.seed;
    this.#ownsCommunicator = parts.ownsCommunicator;
    this.#wallClock = parts.config.wall_clock_breakdown ? new WallClock() : undefined;
    if (this.scheduler) this.optimizer.follow(this.scheduler);
    this.#checkpointer = new Checkpointer({
      ...parts,
      counters: { get: () => this.#counters, set: (counters) => this.#goOnFrom(counters) },
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
    return this.#globalSteps;
  }

  /** Steps that changed nothing, because a gradient was not finite. */
  get skippedSteps(): number {
    return this.#skippedSteps;
  }

  /** What the next backward pass multiplies the loss with; 1 but for fp16. */
  get lossScale(): number {
    return this.lossScaler.scale;
  }

  /** Samples of all ranks that finished steps have used. */
  get globalSamples(): number {
    return this.#globalSteps * this.config.train_batch_size;
  }

  /** Micro-batches so far on this rank. */
  get microSteps(): number {
    return this.#microSteps;
  }

  /** Learning rate of the next step, by parameter group. */
  get lr(): number[] {
    return this.optimizer.lr;
  }

  /** The gradient norm of the last step over all ranks, before clipping; NaN before the first. */
  get globalGradNorm(): number {
    return this.#gradNorm;
  }

  /** Whether the last `step()` updated the weights: not in the middle of an accumulation, and not where gradients overflowed. */
  wasStepApplied(): boolean {
    return this.#stepApplied;
  }

  isGradientAccumulationBoundary(): boolean {
    return (this.#microSteps + 1) % this.config.gradient_accumulation_steps === 0;
  }

  forward(batch: Batch): Tensor {
    this.#loss?.dispose();
    // Dropout differs between ranks and micro-batches, and repeats when the run is repeated.
    const random = { seed: this.#seed, step: this.#microSteps * this.worldSize + this.rank };
    const run = () => scope(() => withRandom(random, () => this.#run(batch))).keep();
    this.#loss = this.#timed('forward', run, (loss) => loss);
    return this.#loss;
  }

  /** Where it throws, the gradients of the micro-batches before it in this step are dropped too, and the step begins anew. */
  backward(loss: Tensor): void {
    // Held until the step divides by it: the scaler may move in between.
    this.#backwardScale ??= this.lossScaler.scale;
    const scale = this.#backwardScale / this.config.gradient_accumulation_steps;
    const run = () => {
      scope(() => backward(loss, full(this.device, loss.shape, loss.dtype, scale)));
      this.#store.finishBackward();
    };
    try {
      this.#timed('backward', run, () => loss);
    } catch (error) {
      this.#abandonStep();
      throw error;
    }
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
    await this.#endMicroBatch();
    if (!boundary || !this.#prints) return;
    if (this.#loss && !this.#loss.isDisposed) this.#lossValue = await this.#loss.item();
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
      await this.#accumulate(next, losses);
      const mean = this.#mean(losses);
      const step = this.#endMicroBatch();
      // The loss is the better message where both are not finite, so it is looked at first; the step is always awaited.
      const [loss, applied] = await Promise.allSettled([mean, step]);
      if (loss.status === 'rejected') throw loss.reason;
      const skipped = skipsOverflow(this.config) && !this.#stepApplied;
      if (!Number.isFinite(loss.value) && !skipped)
        throw new NonFiniteError(this.rank, this.#globalSteps, 'loss', loss.value, applied.status === 'fulfilled');
      if (applied.status === 'rejected') throw applied.reason;
      this.#lossValue = loss.value;
      if (this.#prints) console.log(formatReport(this.report()));
      return loss.value;
    } finally {
      for (const loss of losses) loss.dispose();
    }
  }

  async evalBatch(batch: Batch): Promise<number> {
    const loss = noGrad(() => scope(() => this.#run(batch))).keep();
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
      step: this.#globalSteps,
      loss: this.#lossValue,
      gradNorm: this.#gradNorm,
      lr: this.lr[0]!,
      lossScale: this.lossScale,
      skippedSteps: this.#skippedSteps,
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
    this.#loss?.dispose();
    this.#loss = undefined;
    try {
      this.#fp8?.dispose();
      this.#store.dispose();
      this.model.dispose();
    } finally {
      await this.#checkpointer.settle().finally(() => (this.#ownsCommunicator ? this.communicator.close() : undefined));
    }
  }

  get #counters(): Counters {
    const [globalSteps, microSteps, skippedSteps] = [this.#globalSteps, this.#microSteps, this.#skippedSteps];
    return { globalSteps, microSteps, skippedSteps, backwardScale: this.#backwardScale, seed: this.#seed };
  }

  #goOnFrom({ globalSteps, microSteps, skippedSteps, backwardScale, seed }: Counters): void {
    this.#loss?.dispose();
    this.#loss = undefined;
    this.#globalSteps = globalSteps;
    this.#microSteps = microSteps;
    this.#skippedSteps = skippedSteps;
    this.#backwardScale = backwardScale;
    this.#seed = seed;
  }

  #draw(): Batch {
    if (!this.#dataloader)
      throw new DeepSpeedError('ERR_DATA', '[trainBatch] there is nothing to draw from: give it batches, or initialize() trainingData');
    return this.#dataloader.next();
  }

  #run(batch: Batch): Tensor {
    // The model's own batch type is checked by its ops: names and shapes are data here.
    return this.model.call(toDevice(batch, this.device) as never);
  }

  /** Forward and backward of all micro-batches of a step. */
  async #accumulate(next: () => Batch, losses: Tensor[]): Promise<void> {
    try {
      for (let boundary = false; !boundary; ) {
        const loss = this.forward(next());
        losses.push(loss.retain());
        this.backward(loss);
        boundary = this.isGradientAccumulationBoundary();
        if (!boundary) await this.#endMicroBatch();
      }
    } catch (error) {
      this.#abandonStep();
      throw error;
    }
  }

  /** Back to where the step began: gradients that are there in part would be added to by what comes next. */
  #abandonStep(): void {
    this.#store.zeroGrad();
    this.#backwardScale = undefined;
    this.#microSteps -= this.#microSteps % this.config.gradient_accumulation_steps;
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

  async #endMicroBatch(): Promise<void> {
    const boundary = this.isGradientAccumulationBoundary();
    this.#microSteps++;
    this.#stepApplied = false;
    if (!boundary) return;
    const gradScale = 1 / (this.#backwardScale ?? 1);
    this.#backwardScale = undefined;
    const optionsOf = (parameter: Parameter) => this.optimizer.optionsOf(parameter);
    const apply = () => this.#store.step({ optionsOf, maxNorm: this.config.gradient_clipping, gradScale });
    this.#timed('step', apply, () => this.#store.gradNorm!);
    this.#fp8?.advance();
    this.#gradNorm = await this.#store.finishStep();
    this.#globalSteps++;
    // Every rank has the same norm, and so takes the same way from here.
    this.#stepApplied = Number.isFinite(this.#gradNorm);
    const inRange = this.lossScaler.update(!this.#stepApplied);
    if (this.#stepApplied) {
      this.scheduler?.step();
      if (this.scheduler) this.optimizer.follow(this.scheduler);
    } else {
      this.#skippedSteps++;
      if (!skipsOverflow(this.config)) throw new NonFiniteError(this.rank, this.#globalSteps, 'gradient norm', this.#gradNorm, false);
      if (!inRange) throw new LossScaleError(this.rank, this.#globalSteps, this.lossScale);
    }
    this.#throughput.add(this.config.train_batch_size);
  }

  #timed<T>(phase: Phase, body: () => T, probe: (result: T) => Tensor): T {
    return this.#wallClock ? this.#wallClock.time(phase, body, probe) : body();
  }

  /** Whether this rank reports after the step that has just ended. */
  get #prints(): boolean {
    const every = this.config.steps_per_print;
    return Boolean(every) && this.#globalSteps % every! === 0 && this.rank === 0;
  }
}

function drawFrom(batches: Iterable<Batch> | Iterator<Batch>, wanted: number): () => Batch {
  const source = Symbol.iterator in batches ? batches[Symbol.iterator]() : batches;
  let drawn = 0;
  return () => {
    const { value, done } = source.next();
    if (done) throw new DeepSpeedError('ERR_DATA', `[trainBatch] a step takes ${wanted} micro-batches, the iterator ended after ${drawn}`);
    drawn++;
    return value;
  };
}
