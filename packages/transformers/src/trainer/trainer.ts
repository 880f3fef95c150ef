import { resolve } from 'node:path';
import type { Batch, BatchLoader, CheckpointedEngine, Initialize, Module, Tensor, TrainingData } from '@deepspeed-ts/core';
import { padCollator, type TokenSample } from '../data/collate.js';
import { type ReadArguments, type ResolvedArguments, readArguments, TrainerError, type TrainingArguments } from './arguments.js';
import { type CallbackContext, type CallbackEvent, Callbacks, type TrainerCallback, TrainerControl } from './callbacks.js';
import { CheckpointKeeper } from './checkpoint-keeper.js';
import { checkpointName } from './checkpoints.js';
import { type CompletedRun, completeConfig } from './complete-config.js';
import { defaultFlow } from './default-flow.js';
import { metricName } from './early-stopping.js';
import { type EvalDataset, type Evaluation, evaluateLoss } from './evaluate.js';
import { LossHistory } from './loss-history.js';
import { LossSum } from './loss-sum.js';
import { ProgressCallback } from './progress.js';
import { interval } from './run-length.js';
import { type LogEntry, TrainerState } from './state.js';
import { tokenMeanStep } from './token-mean.js';

/** What a Trainer asks of a tokenizer, to pad with its token and to save it beside the model. */
export interface ProcessingClass {
  readonly padTokenId?: number | undefined;
  savePretrained?(directory: string): Promise<void>;
}

export interface TrainerOptions<Sample = TokenSample> {
  /** Its `forward` takes a micro-batch and gives the mean loss over the labels that count, f32 []. */
  readonly model: Module<[never], Tensor>;
  readonly args?: TrainingArguments;
  readonly trainDataset?: TrainingData<Sample>;
  readonly evalDataset?: EvalDataset<Sample>;
  /** The tokenizer: pads with its token, and is saved beside the model. */
  readonly processingClass?: ProcessingClass | undefined;
  /** The older name of `processingClass`. */
  readonly tokenizer?: ProcessingClass | undefined;
  /** Makes a batch of samples. Default: rows of tokens, padded on the right. Data that threads load brings its own. */
  readonly dataCollator?: (samples: readonly Sample[]) => Batch;
  readonly callbacks?: readonly TrainerCallback[];
  /** More metrics of an evaluation, by name; the same on every rank. */
  readonly computeMetrics?: (evaluation: Evaluation) => Readonly<Record<string, number>>;
  /** Makes the engine: `initialize` of deepspeed-ts. */
  readonly initialize: Initialize;
}

export interface TrainOutput {
  readonly globalStep: number;
  /** Mean over the steps of this call. */
  readonly trainingLoss: number;
  readonly metrics: LogEntry;
}

/** An engine and what belongs to it. */
interface Run {
  readonly engine: CheckpointedEngine;
  readonly loader: BatchLoader | undefined;
  readonly plan: CompletedRun;
  readonly losses: LossSum;
  readonly checkpoints: CheckpointKeeper;
}

/**
 * Trains and evaluates a language model, with the names of Hugging Face's Trainer. Every rank makes one and calls the same methods.
 *
 * @example
 * const trainer = new Trainer({ model, args: { outputDir: 'out', deepspeed: 'ds_config.json', learningRate: 2e-5 }, trainDataset });
 * await trainer.train();
 * await trainer.saveModel();
 * await trainer.dispose();
 */
export class Trainer<Sample = TokenSample> {
  readonly model: Module<[never], Tensor>;
  readonly processingClass: ProcessingClass | undefined;
  readonly control = new TrainerControl();
  readonly #options: TrainerOptions<Sample>;
  readonly #read: ReadArguments;
  readonly #callbacks: Callbacks;
  readonly #collate: (samples: readonly Sample[]) => Batch;
  #state = new TrainerState(true);
  #run: Run | undefined;
  #losses: LossHistory | undefined;
  /** The epoch under way and the step at which it began. */
  #place = { epoch: 0, epoch_start: 0 };

  /** @throws ConfigError listing every problem of the arguments */
  constructor(options: TrainerOptions<Sample>) {
    this.#options = options;
    this.#read = readArguments(options.args ?? {});
    this.model = options.model;
    this.processingClass = options.processingClass ?? options.tokenizer;
    this.#collate =
      options.dataCollator ??
      (padCollator({ padTokenId: this.processingClass?.padTokenId }) as unknown as (samples: readonly Sample[]) => Batch);
    this.#callbacks = new Callbacks([defaultFlow, ...(options.callbacks ?? []), new ProgressCallback()]);
    const { evalStrategy } = this.args;
    if (evalStrategy !== 'no' && !options.evalDataset)
      throw new TrainerError(`args.evalStrategy is '${evalStrategy}', but there is no evalDataset`);
  }

  /** Every argument with its value in force. */
  get args(): ResolvedArguments {
    return this.#read.args;
  }

  get state(): TrainerState {
    return this.#state;
  }

  /** @throws TrainerError before the first `train()` or `evaluate()` */
  get engine(): CheckpointedEngine {
    if (!this.#run) throw new TrainerError('engine: train() or evaluate() makes it, and neither has been called');
    return this.#run.engine;
  }

  addCallback(callback: TrainerCallback): void {
    this.#callbacks.add(callback);
  }

  /**
   * Trains to the end, from the beginning or from a checkpoint: with the same data and arguments the weights are bit for bit those of a
   * training that was never interrupted.
   *
   * @param options.resumeFromCheckpoint - A checkpoint's folder; true: the last one of `outputDir`. Default: what the arguments say.
   */
  async train({
    resumeFromCheckpoint = this.args.resumeFromCheckpoint,
  }: {
    resumeFromCheckpoint?: string | boolean | null;
  } = {}): Promise<TrainOutput> {
    if (!this.#options.trainDataset) throw new TrainerError('train: there is no trainDataset');
    const { engine, loader, plan, checkpoints } = await this.#open();
    if (engine.globalSteps > 0 && !resumeFromCheckpoint)
      throw new TrainerError('train: this Trainer has trained already; make another, or give resumeFromCheckpoint');
    const losses = this.#begin(plan);
    if (resumeFromCheckpoint) await this.#resume(resumeFromCheckpoint, losses);
    const state = this.#state;
    const started = {
      time: performance.now(),
      step: state.globalStep,
      samples: plan.sizes.micro * plan.sizes.accumulation * plan.sizes.ranks,
    };
    await this.#call('onTrainBegin');
    if (this.args.evalOnStart && state.globalStep === 0) await this.evaluate();
    while (state.globalStep < state.maxSteps && !this.control.shouldTrainingStop) await this.#epoch(loader!, plan);
    const trainingLoss = await losses.mean(state.globalStep);
    await checkpoints.settle();
    if (this.args.loadBestModelAtEnd) await checkpoints.loadBest(state);
    const seconds = (performance.now() - started.time) / 1000;
    const steps = state.globalStep - started.step;
    const metrics = {
      train_runtime: round(seconds, 4),
      train_samples_per_second: round((steps * started.samples) / seconds, 3),
      train_steps_per_second: round(steps / seconds, 3),
      train_loss: trainingLoss,
    };
    await this.log(metrics);
    await this.#call('onTrainEnd');
    return { globalStep: state.globalStep, trainingLoss, metrics: { ...metrics, epoch: state.epoch } };
  }

  /**
   * The loss over a dataset, in nats a token: each of its samples counts once and each token alike, however they fall into batches and on
   * ranks. With `perplexity`, what `computeMetrics` adds, and rates, by names that begin with `eval_`.
   */
  async evaluate(
    dataset: EvalDataset<Sample> | undefined = this.#options.evalDataset,
    { metricKeyPrefix = 'eval' } = {},
  ): Promise<LogEntry> {
    if (!dataset) throw new TrainerError('evaluate: there is no evalDataset; give one to the Trainer or to evaluate()');
    const { engine } = await this.#open();
    const started = performance.now();
    const result = await evaluateLoss(engine, dataset, { batchSize: this.args.perDeviceEvalBatchSize, collate: this.#collate });
    const seconds = (performance.now() - started) / 1000;
    const found = { loss: result.loss, perplexity: Math.exp(result.loss), ...this.#options.computeMetrics?.(result) };
    const rates = { runtime: round(seconds, 4), samples_per_second: round(result.samples / seconds, 3) };
    const named = (values: object) =>
      Object.fromEntries(Object.entries(values).map(([name, value]) => [`${metricKeyPrefix}_${name}`, value as number]));
    const metrics = { ...named(found), ...named(rates), epoch: this.#state.epoch };
    await this.log(metrics);
    await this.#call('onEvaluate', { metrics });
    return metrics;
  }

  /** Writes the model as Hugging Face libraries read it, in the precision that it was trained in, and the tokenizer beside it. Every rank calls it. */
  async saveModel(directory = this.args.outputDir): Promise<void> {
    const { engine } = await this.#open();
    if (engine.getDataTypes().weights === 'f32') await engine.saveModel(directory);
    else await engine.save16bitModel(directory);
    if (engine.communicator.rank === 0) await this.processingClass?.savePretrained?.(directory);
  }

  /** Adds an entry to the history of logs, and tells the callbacks. */
  async log(logs: LogEntry): Promise<void> {
    const entry = { ...logs, epoch: this.#state.epoch };
    this.#state.logHistory.push({ ...entry, step: this.#state.globalStep });
    await this.#call('onLog', { logs: entry });
  }

  /** Waits for a checkpoint that is being written, and gives everything back. The model may be used again. Every rank calls it. */
  async dispose(): Promise<void> {
    const run = this.#run;
    this.#run = undefined;
    if (!run) return;
    run.losses.dispose();
    await run.checkpoints.settle().finally(() => run.engine.dispose());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  // ---- the loop -----------------------------------------------------------------------------------------------
  #begin({ length, sizes }: CompletedRun): LossHistory {
    const { args } = this;
    const state = new TrainerState(this.engine.communicator.rank === 0);
    state.maxSteps = length.totalSteps;
    state.numTrainEpochs = Math.ceil(length.epochs);
    state.trainBatchSize = sizes.micro;
    state.loggingSteps = interval(args.loggingSteps, length.totalSteps);
    state.evalSteps = interval(args.evalSteps ?? args.loggingSteps, length.totalSteps);
    state.saveSteps = interval(args.saveSteps, length.totalSteps);
    this.#state = state;
    this.control.shouldTrainingStop = false;
    this.#place = { epoch: 0, epoch_start: 0 };
    this.#losses = new LossHistory(this.#run!.losses);
    return this.#losses;
  }

  async #epoch(loader: BatchLoader, plan: CompletedRun): Promise<void> {
    const state = this.#state;
    const { epoch } = loader;
    this.#place = { ...this.#place, epoch };
    this.control.shouldEpochStop = false;
    await this.#call('onEpochBegin');
    while (loader.epoch === epoch && state.globalStep < state.maxSteps && !this.control.shouldTrainingStop) {
      await this.#step(loader, plan);
      if (!this.control.shouldEpochStop) continue;
      if (loader.epoch === epoch) loader.setEpoch(epoch + 1);
      break;
    }
    this.control.newStep();
    await this.#call('onEpochEnd');
    await this.#logEvaluateSave();
    this.#place = { epoch: loader.epoch, epoch_start: state.globalStep };
  }

  async #step(loader: BatchLoader, { sizes, length }: CompletedRun): Promise<void> {
    const { engine, losses } = this.#run!;
    const state = this.#state;
    const { epoch } = loader;
    const rate = engine.lr[0]!;
    await this.#call('onStepBegin');
    const batches: Batch[] = [];
    while (batches.length < sizes.accumulation && loader.epoch === epoch) batches.push(await loader.next());
    await tokenMeanStep(engine, batches, losses);
    state.globalStep++;
    const drawn = (state.globalStep - this.#place.epoch_start) * sizes.accumulation;
    state.epoch = epoch + Math.min(1, drawn / (length.batchesPerEpoch ?? state.maxSteps * sizes.accumulation));
    this.control.newStep();
    await this.#call('onStepEnd');
    await this.#logEvaluateSave(rate);
  }

  /** @param rate - The learning rate that the last step was made with. */
  async #logEvaluateSave(rate = this.engine.lr[0]!): Promise<void> {
    const { control } = this;
    const state = this.#state;
    const losses = this.#losses!;
    if (control.shouldLog && state.globalStep > losses.lastLogged) {
      const loss = await losses.log(state.globalStep);
      await this.log({ loss, grad_norm: this.engine.globalGradNorm, learning_rate: rate });
    }
    if (control.shouldEvaluate) {
      const best = this.#judge(await this.evaluate());
      if (this.args.saveStrategy === 'best') control.shouldSave = best;
    }
    if (control.shouldSave) {
      await this.#run!.checkpoints.save({ state, callbacks: this.#callbacks, losses }, this.#place);
      await this.#call('onSave');
    }
  }

  /** Whether these metrics are the best so far. */
  #judge(metrics: LogEntry): boolean {
    const name = metricName(this.args);
    if (name === undefined) return false;
    const value = metrics[name];
    if (value === undefined)
      throw new TrainerError(`args.metricForBestModel: there is no metric '${name}'; there are ${Object.keys(metrics).join(', ')}`);
    const state = this.#state;
    const best = state.bestMetric;
    if (best !== null && !(this.args.greaterIsBetter ? value > best : value < best)) return false;
    state.bestMetric = value;
    if (this.args.saveStrategy !== 'no') {
      state.bestGlobalStep = state.globalStep;
      state.bestModelCheckpoint = resolve(this.args.outputDir, checkpointName(state.globalStep));
    }
    return true;
  }

  async #resume(from: string | true, losses: LossHistory): Promise<void> {
    const { checkpoints, loader } = this.#run!;
    const state = this.#state;
    const place = await checkpoints.resume(from, { state, callbacks: this.#callbacks, losses });
    // Saved after the last step of an epoch: the next one begins here.
    const { epoch } = loader!;
    this.#place = epoch === place.epoch ? place : { epoch, epoch_start: state.globalStep };
  }

  // ---- parts --------------------------------------------------------------------------------------------------
  async #open(): Promise<Run> {
    if (this.#run) return this.#run;
    const { trainDataset, initialize, model } = this.#options;
    const { args } = this;
    const facts = {
      ...this.#read,
      samples: samplesOf(trainDataset),
      hasTrainingData: trainDataset !== undefined,
      hiddenSize: widthOf(model),
    };
    let plan: CompletedRun | undefined;
    const threads = trainDataset !== undefined && 'module' in trainDataset;
    const ahead = Math.max(1, args.dataloaderNumWorkers) * (args.dataloaderPrefetchFactor ?? 2);
    const { engine, dataloader } = await initialize<Sample>({
      model,
      config: args.deepspeed ?? {},
      completeConfig: (raw, place) => {
        plan = completeConfig(raw, place, facts);
        return plan;
      },
      seed: args.seed,
      // Pulling norms and biases to zero does not make a model simpler.
      parameterGroups: (_, { shape }) => (shape.length < 2 ? { weightDecay: 0 } : undefined),
      ...(args.useCpu && { device: 'cpu' as const }),
      ...(trainDataset && { trainingData: trainDataset }),
      ...(trainDataset && !threads && { collate: this.#collate, prefetch: ahead }),
    });
    const losses = new LossSum(engine.device, engine.communicator);
    this.#run = { engine, loader: dataloader, plan: plan!, losses, checkpoints: new CheckpointKeeper(engine, args) };
    return this.#run;
  }

  async #call(event: CallbackEvent, more: Pick<CallbackContext, 'metrics' | 'logs'> = {}): Promise<void> {
    const context = { model: this.model, engine: this.engine, processingClass: this.processingClass, ...more };
    await this.#callbacks.call(event, this.args, this.#state, this.control, context);
  }
}

function samplesOf(data: TrainingData<never> | TrainingData<unknown> | undefined): number | undefined {
  if (!data) return undefined;
  if ('length' in data) return data.length;
  return 'samples' in data ? data.samples : undefined;
}

/** The width of a model that has a config of ours, or one of Hugging Face's. */
function widthOf(model: object): number | undefined {
  const { config } = model as { config?: { dim?: unknown; hidden_size?: unknown } };
  const width = config?.dim ?? config?.hidden_size;
  return typeof width === 'number' ? width : undefined;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
