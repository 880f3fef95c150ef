import {
  type Batch,
  backward,
  DeepSpeedError,
  full,
  noGrad,
  type Parameter,
  scope,
  type Tensor,
  withCheckpointPolicy,
  withRandom,
} from '@deepspeed-ts/core';
import type { Counters } from '../checkpoint/progress.js';
import { skipsOverflow } from '../precision/index.js';
import { ActivationCheckpointing, type CheckpointTimes } from './activation-checkpointing.js';
import { afterwards } from './afterwards.js';
import { toDevice } from './batch.js';
import { LossScaleError, NonFiniteError } from './errors.js';
import type { EngineParts } from './parts.js';
import type { Phase } from './wall-clock.js';

/** Who wants to know what happens in a step. */
export interface StepObserver {
  /** Runs a phase; `probe` picks a tensor of its result that can be waited for. */
  timed<T>(phase: Phase, body: () => T, probe: (result: T) => Tensor): T;
  /** Before the forward pass of a micro-batch. */
  microBatch?(batch: Batch): void;
  /** After every optimizer step, skipped ones too, with the samples of all ranks that went into it. */
  stepped(samples: number): void;
}

/** Streams of random numbers that one forward pass may use; there are 2^32. */
const STREAMS = 2 ** 16;

/**
 * The state machine of training: micro-batches go through forward and backward, and the last one of a step updates the weights. Knows
 * where in a step it is, and gets back to its start where something throws. `endMicroBatch` alone counts micro-batches: several backward
 * passes before it are one.
 */
export class Training {
  readonly #parts: EngineParts;
  readonly #observer: StepObserver;
  readonly #checkpointing: ActivationCheckpointing;
  #seed: number;
  /** Micro-batches that have ended, and those of them that belong to the running step. */
  #microSteps = 0;
  #microInStep = 0;
  /** Backward passes of the micro-batch that runs now. */
  #passes = 0;
  /** Where the step ends, when the caller says so. */
  #boundary: boolean | undefined;
  #unreduced = 0;
  #globalSteps = 0;
  #globalSamples = 0;
  #skippedSteps = 0;
  #stepApplied = false;
  #gradNorm = Number.NaN;
  /** The loss scale that backward passes since the last step began with. */
  #backwardScale: number | undefined;
  #loss: Tensor | undefined;
  /** Whether forward passes drop activations. */
  dropout = true;

  constructor(parts: EngineParts, observer: StepObserver) {
    this.#parts = parts;
    this.#observer = observer;
    this.#checkpointing = new ActivationCheckpointing(parts.config.activation_checkpointing, parts.device);
    this.#seed = parts.seed;
  }

  get globalSteps(): number {
    return this.#globalSteps;
  }

  get skippedSteps(): number {
    return this.#skippedSteps;
  }

  get microSteps(): number {
    return this.#microSteps;
  }

  get globalSamples(): number {
    return this.#globalSamples;
  }

  get seed(): number {
    return this.#seed;
  }

  get gradNorm(): number {
    return this.#gradNorm;
  }

  get stepApplied(): boolean {
    return this.#stepApplied;
  }

  /** The loss of the last forward pass, while it is alive. */
  get loss(): Tensor | undefined {
    return this.#loss?.isDisposed ? undefined : this.#loss;
  }

  /** Whether the micro-batch that runs now, or comes next, is the last of its step. */
  get isBoundary(): boolean {
    const { managed_gradient_accumulation: managed, gradient_accumulation_steps: wanted } = this.#parts.config;
    return this.#boundary ?? (!managed || this.#microInStep + 1 >= wanted);
  }

  /** Says of this micro-batch and all that follow whether they end a step; `undefined` lets the count decide again. */
  setBoundary(boundary: boolean | undefined): void {
    this.#boundary = boundary;
  }

  /** Whether nothing of a step has begun. */
  get isBetweenSteps(): boolean {
    return this.#microInStep === 0 && this.#passes === 0;
  }

  /** With `activation_checkpointing.profile`: what checkpoints took in the steps since the last call. */
  takeCheckpointTimes(): CheckpointTimes | undefined {
    return this.#checkpointing.take();
  }

  /** What the loss of the running step is multiplied with; `undefined` before its first backward pass. */
  get backwardScale(): number | undefined {
    return this.#backwardScale;
  }

  get counters(): Counters {
    return {
      globalSteps: this.#globalSteps,
      globalSamples: this.#globalSamples,
      microSteps: this.#microSteps,
      microInStep: this.#microInStep,
      betweenBackwardAndStep: this.#passes > 0,
      skippedSteps: this.#skippedSteps,
      backwardScale: this.#backwardScale,
      seed: this.#seed,
    };
  }

  set counters(counters: Counters) {
    this.dropLoss();
    this.#globalSteps = counters.globalSteps;
    this.#globalSamples = counters.globalSamples;
    this.#microSteps = counters.microSteps;
    this.#microInStep = counters.microInStep;
    this.#passes = 0;
    this.#skippedSteps = counters.skippedSteps;
    this.#backwardScale = counters.backwardScale;
    this.#seed = counters.seed;
  }

  forward(batch: Batch): Tensor {
    this.#loss?.dispose();
    this.#observer.microBatch?.(batch);
    const { rank, size } = this.#parts.communicator;
    // Dropout differs between ranks, micro-batches and the passes of one, and repeats when the run is repeated.
    const random = {
      active: this.dropout,
      seed: this.#seed,
      step: this.#microSteps * size + rank,
      nextStream: this.#passes * STREAMS,
    };
    const { policy } = this.#checkpointing;
    const run = () => scope(() => withCheckpointPolicy(policy, () => withRandom(random, () => this.#run(batch)))).keep();
    this.#loss = this.#observer.timed('forward', run, (loss) => loss);
    if (this.#loss.node) this.#checkpointing.assertUsed();
    return this.#loss;
  }

  backward(loss: Tensor, averaged = true): void {
    const { lossScaler, device, store } = this.#parts;
    // Held until the step divides by it: the scaler may move in between.
    this.#backwardScale ??= lossScaler.scale;
    const scale = this.#backwardScale / (averaged ? this.#parts.config.gradient_accumulation_steps : 1);
    const run = () => {
      scope(() => backward(loss, full(device, loss.shape, loss.dtype, scale)));
      store.finishBackward();
    };
    try {
      this.#observer.timed('backward', run, () => loss);
      this.#passes++;
    } catch (error) {
      this.abandonStep();
      throw error;
    }
  }

  /** Runs `body` without reducing the gradients of its backward passes: they add up on this rank until one outside reduces their sum. */
  unreduced<T>(body: () => T): T {
    const { store } = this.#parts;
    this.#unreduced++;
    store.reduces = false;
    const leave = () => {
      store.reduces = --this.#unreduced === 0;
    };
    return afterwards(body, leave);
  }

  /** As `unreduced`, and reduces what has added up where nobody else has yet. */
  coalesced<T>(body: () => T): T {
    return afterwards(
      () => this.unreduced(body),
      () => {
        if (this.#unreduced === 0 && this.#parts.store.hasUnreduced) this.#parts.store.finishBackward();
      },
    );
  }

  /** @throws DeepSpeedError where micro-batches are not counted towards a step */
  assertCounting(method: string): void {
    const why =
      this.#boundary !== undefined
        ? 'setGradientAccumulationBoundary() says where it ends; give it undefined first, or use forward, backward and step'
        : this.#unreduced > 0
          ? 'inside noSync() none can be taken; call it outside'
          : this.#passes > 0
            ? 'the micro-batch before has not ended; call step() or zeroGrad() first'
            : undefined;
    if (why) throw new DeepSpeedError('ERR_BATCH_SIZE', `[${method}] takes a whole step, but ${why}`);
  }

  /** Forward and backward of the micro-batches that the step still takes; their losses are put into `losses`, whose owner disposes them. */
  async accumulate(next: () => Batch | Promise<Batch>, losses: Tensor[]): Promise<void> {
    try {
      for (let left = this.#parts.config.gradient_accumulation_steps - this.#microInStep; left > 0; left--) {
        const batch = next();
        const loss = this.forward(batch instanceof Promise ? await batch : batch);
        losses.push(loss.retain());
        this.backward(loss);
        if (left > 1) this.#countMicroBatch();
      }
    } catch (error) {
      this.abandonStep();
      throw error;
    }
  }

  /** Counts a micro-batch, and takes the step where it is the last one. */
  async endMicroBatch(): Promise<void> {
    const boundary = this.isBoundary;
    if (boundary && this.#unreduced > 0) {
      throw new DeepSpeedError(
        'ERR_NO_SYNC',
        `[step] rank ${this.#parts.communicator.rank}: this micro-batch ends a step, and inside noSync() its gradients are those of one rank; run its backward pass and step() outside`,
      );
    }
    this.#countMicroBatch();
    if (boundary) await this.#step();
  }

  /** The loss, f32 [], without a trace of it; the caller disposes it. */
  evaluate(batch: Batch): Tensor {
    return noGrad(() => scope(() => this.#run(batch))).keep();
  }

  /** Back to where the step began: gradients that are there in part would be added to by what comes next. */
  abandonStep(): void {
    this.#parts.store.zeroGrad();
    this.#backwardScale = undefined;
    this.#microSteps -= this.#microInStep;
    this.#microInStep = 0;
    this.#passes = 0;
  }

  dropLoss(): void {
    this.#loss?.dispose();
    this.#loss = undefined;
  }

  #countMicroBatch(): void {
    this.#microSteps++;
    this.#microInStep++;
    this.#passes = 0;
    this.#stepApplied = false;
  }

  async #step(): Promise<void> {
    const { store, optimizer, scheduler, lossScaler, fp8, config } = this.#parts;
    const { rank, size } = this.#parts.communicator;
    const samples = this.#microInStep * config.train_micro_batch_size_per_gpu * size;
    this.#microInStep = 0;
    const gradScale = 1 / (this.#backwardScale ?? 1);
    this.#backwardScale = undefined;
    const optionsOf = (parameter: Parameter) => optimizer.optionsOf(parameter);
    const apply = () => store.step({ optionsOf, maxNorm: config.gradient_clipping, gradScale });
    this.#observer.timed('step', apply, () => store.gradNorm!);
    fp8?.advance();
    this.#gradNorm = await store.finishStep();
    this.#globalSteps++;
    this.#globalSamples += samples;
    // Every rank has the same norm, and so takes the same way from here.
    this.#stepApplied = Number.isFinite(this.#gradNorm);
    const inRange = lossScaler.update(!this.#stepApplied);
    if (this.#stepApplied) {
      scheduler?.step();
      if (scheduler) optimizer.follow(scheduler);
    } else {
      this.#skippedSteps++;
      if (!skipsOverflow(config)) throw new NonFiniteError(rank, this.#globalSteps, 'gradient norm', this.#gradNorm, false);
      if (!inRange) throw new LossScaleError(rank, this.#globalSteps, lossScaler.scale);
    }
    this.#checkpointing.stepped();
    this.#observer.stepped(samples);
  }

  #run(batch: Batch): Tensor {
    const { model, device } = this.#parts;
    // The model's own batch type is checked by its ops: names and shapes are data here.
    return model.call(toDevice(batch, device) as never);
  }
}
