import { backward, DeepSpeedError, full, noGrad, type Parameter, scope, type Tensor, withRandom } from '@deepspeed-ts/core';
import type { Counters } from '../checkpoint/progress.js';
import { skipsOverflow } from '../precision/index.js';
import { type Batch, toDevice } from './batch.js';
import { LossScaleError, NonFiniteError } from './errors.js';
import type { EngineParts } from './parts.js';
import type { Phase } from './wall-clock.js';

/** Who wants to know what happens in a step. */
export interface StepObserver {
  /** Runs a phase; `probe` picks a tensor of its result that can be waited for. */
  timed<T>(phase: Phase, body: () => T, probe: (result: T) => Tensor): T;
  /** After every optimizer step, skipped ones too. */
  stepped(): void;
}

/**
 * The state machine of training: micro-batches go through forward and backward, and the last one of a step updates the weights. Knows
 * where in a step it is, and gets back to its start where something throws.
 */
export class Training {
  readonly #parts: EngineParts;
  readonly #observer: StepObserver;
  #seed: number;
  #microSteps = 0;
  #globalSteps = 0;
  #skippedSteps = 0;
  #stepApplied = false;
  #gradNorm = Number.NaN;
  /** The loss scale that backward passes since the last step began with. */
  #backwardScale: number | undefined;
  #loss: Tensor | undefined;

  constructor(parts: EngineParts, observer: StepObserver) {
    this.#parts = parts;
    this.#observer = observer;
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
    return (this.#microSteps + 1) % this.#accumulation === 0;
  }

  get counters(): Counters {
    const [globalSteps, microSteps, skippedSteps] = [this.#globalSteps, this.#microSteps, this.#skippedSteps];
    return { globalSteps, microSteps, skippedSteps, backwardScale: this.#backwardScale, seed: this.#seed };
  }

  set counters({ globalSteps, microSteps, skippedSteps, backwardScale, seed }: Counters) {
    this.dropLoss();
    this.#globalSteps = globalSteps;
    this.#microSteps = microSteps;
    this.#skippedSteps = skippedSteps;
    this.#backwardScale = backwardScale;
    this.#seed = seed;
  }

  forward(batch: Batch): Tensor {
    this.#loss?.dispose();
    const { rank, size } = this.#parts.communicator;
    // Dropout differs between ranks and micro-batches, and repeats when the run is repeated.
    const random = { seed: this.#seed, step: this.#microSteps * size + rank };
    const run = () => scope(() => withRandom(random, () => this.#run(batch))).keep();
    this.#loss = this.#observer.timed('forward', run, (loss) => loss);
    return this.#loss;
  }

  backward(loss: Tensor): void {
    const { lossScaler, device, store } = this.#parts;
    // Held until the step divides by it: the scaler may move in between.
    this.#backwardScale ??= lossScaler.scale;
    const scale = this.#backwardScale / this.#accumulation;
    const run = () => {
      scope(() => backward(loss, full(device, loss.shape, loss.dtype, scale)));
      store.finishBackward();
    };
    try {
      this.#observer.timed('backward', run, () => loss);
    } catch (error) {
      this.abandonStep();
      throw error;
    }
  }

  /** Forward and backward of all micro-batches of a step; their losses are put into `losses`, whose owner disposes them. */
  async accumulate(next: () => Batch, losses: Tensor[]): Promise<void> {
    try {
      for (let boundary = false; !boundary; ) {
        const loss = this.forward(next());
        losses.push(loss.retain());
        this.backward(loss);
        boundary = this.isBoundary;
        if (!boundary) await this.endMicroBatch();
      }
    } catch (error) {
      this.abandonStep();
      throw error;
    }
  }

  /** Counts a micro-batch, and takes the step where it was the last one. */
  async endMicroBatch(): Promise<void> {
    const boundary = this.isBoundary;
    this.#microSteps++;
    this.#stepApplied = false;
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
    this.#microSteps -= this.#microSteps % this.#accumulation;
  }

  dropLoss(): void {
    this.#loss?.dispose();
    this.#loss = undefined;
  }

  async #step(): Promise<void> {
    const { store, optimizer, scheduler, lossScaler, fp8, config } = this.#parts;
    const { rank } = this.#parts.communicator;
    const gradScale = 1 / (this.#backwardScale ?? 1);
    this.#backwardScale = undefined;
    const optionsOf = (parameter: Parameter) => optimizer.optionsOf(parameter);
    const apply = () => store.step({ optionsOf, maxNorm: config.gradient_clipping, gradScale });
    this.#observer.timed('step', apply, () => store.gradNorm!);
    fp8?.advance();
    this.#gradNorm = await store.finishStep();
    this.#globalSteps++;
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
    this.#observer.stepped();
  }

  #run(batch: Batch): Tensor {
    const { model, device } = this.#parts;
    // The model's own batch type is checked by its ops: names and shapes are data here.
    return model.call(toDevice(batch, device) as never);
  }

  get #accumulation(): number {
    return this.#parts.config.gradient_accumulation_steps;
  }
}

/** Micro-batches of a step out of an iterator, and an error that says how many were wanted where it ends early. */
export function drawFrom(batches: Iterable<Batch> | Iterator<Batch>, wanted: number): () => Batch {
  const source = Symbol.iterator in batches ? batches[Symbol.iterator]() : batches;
  let drawn = 0;
  return () => {
    const { value, done } = source.next();
    if (done) throw new DeepSpeedError('ERR_DATA', `[trainBatch] a step takes ${wanted} micro-batches, the iterator ended after ${drawn}`);
    drawn++;
    return value;
  };
}
