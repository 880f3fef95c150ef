import { ConfigError, type ConfigOf, composeConfig, DeepSpeedError, defineSection, type Json } from '@deepspeed-ts/core';
import { SCHEDULES } from './schedules.js';

const STRATEGY = ['no', 'steps', 'epoch'] as const;
const FLAG = { type: 'boolean', default: false } as const;
const INTERVAL = 'A number below 1 is a share of all steps.';

/** The arguments of a Trainer: names and defaults of Hugging Face's TrainingArguments, in camelCase. */
const argumentsSection = defineSection({
  name: 'Training arguments',
  summary: "Hugging Face's TrainingArguments, as far as there is something here that they set.",
  properties: {
    outputDir: { type: 'string', default: 'trainer_output', description: 'Checkpoints and the model go here.' },
    perDeviceTrainBatchSize: { type: 'integer', minimum: 1, default: 8, description: 'Samples of a micro-batch.' },
    perDeviceEvalBatchSize: { type: 'integer', minimum: 1, default: 8, description: 'The same in evaluation.' },
    gradientAccumulationSteps: { type: 'integer', minimum: 1, default: 1, description: 'Micro-batches of a step.' },
    numTrainEpochs: { type: 'number', exclusiveMinimum: 0, default: 3, description: 'Epochs, where maxSteps does not say how long.' },
    maxSteps: { type: 'integer', minimum: -1, default: -1, description: 'Optimizer steps of the whole training; -1: numTrainEpochs.' },
    learningRate: { type: 'number', minimum: 0, default: 5e-5, description: 'The highest learning rate.' },
    lrSchedulerType: {
      type: 'string',
      enum: Object.keys(SCHEDULES) as (keyof typeof SCHEDULES)[],
      refused: { reduce_lr_on_plateau: 'it follows metrics, not steps, and does not exist here', greedy: 'it does not exist here' },
      default: 'linear',
      description: 'How the learning rate moves, where the config names no scheduler.',
    },
    lrSchedulerKwargs: { type: 'object', default: {}, description: 'What some of them want to know: numCycles, minLr, minLrRate, ...' },
    warmupSteps: { type: 'number', minimum: 0, default: 0, description: `Steps of the warm-up. ${INTERVAL}` },
    warmupRatio: { type: ['number', 'null'], minimum: 0, maximum: 1, default: null, description: 'The older name of a share of steps.' },
    optim: {
      type: 'string',
      enum: ['adamw_torch', 'adamw_torch_fused', 'adamw_8bit', 'adamw_bnb_8bit', 'adagrad', 'lion_32bit', 'sgd'],
      default: 'adamw_torch_fused',
      description: 'The optimizer, where the config names none.',
    },
    weightDecay: { type: 'number', minimum: 0, default: 0, description: 'Of matrices; norms and biases never decay.' },
    adamBeta1: { type: 'number', minimum: 0, exclusiveMaximum: 1, default: 0.9, description: 'Decay of the running mean of the gradient.' },
    adamBeta2: { type: 'number', minimum: 0, exclusiveMaximum: 1, default: 0.999, description: 'The same of its square.' },
    adamEpsilon: { type: 'number', minimum: 0, default: 1e-8, description: 'Added to the root of the second moment.' },
    maxGradNorm: { type: 'number', minimum: 0, default: 1, description: 'Largest norm of the gradient; 0 does not clip.' },
    bf16: { ...FLAG, description: 'Train in bfloat16 over f32 master weights.' },
    fp16: { ...FLAG, description: 'Train in float16 with loss scaling.' },
    gradientCheckpointing: { ...FLAG, description: 'Recompute blocks in backward: less memory, the same numbers.' },
    loggingStrategy: { type: 'string', enum: STRATEGY, default: 'steps', description: 'When to log.' },
    loggingSteps: { type: 'number', exclusiveMinimum: 0, default: 500, description: `Steps between logs. ${INTERVAL}` },
    loggingFirstStep: { ...FLAG, description: 'Log the first step too.' },
    loggingDir: { type: ['string', 'null'], default: null, description: 'Where reportTo writes; null: outputDir/runs.' },
    evalStrategy: { type: 'string', enum: STRATEGY, default: 'no', description: 'When to evaluate.' },
    evalSteps: {
      type: ['number', 'null'],
      exclusiveMinimum: 0,
      default: null,
      description: `Steps between; null: loggingSteps. ${INTERVAL}`,
    },
    evalDelay: { type: 'number', minimum: 0, default: 0, description: 'Steps or epochs before the first evaluation.' },
    evalOnStart: { ...FLAG, description: 'Evaluate before training.' },
    saveStrategy: { type: 'string', enum: [...STRATEGY, 'best'], default: 'steps', description: 'When to save; best: when the metric is.' },
    saveSteps: { type: 'number', exclusiveMinimum: 0, default: 500, description: `Steps between checkpoints. ${INTERVAL}` },
    saveTotalLimit: {
      type: ['integer', 'null'],
      minimum: 1,
      default: null,
      description: 'Checkpoints that stay; the best one stays in any case.',
    },
    loadBestModelAtEnd: { ...FLAG, description: 'Go back to the best checkpoint when training ends.' },
    metricForBestModel: { type: ['string', 'null'], default: null, description: 'By which metric; null: loss, where one is wanted.' },
    greaterIsBetter: { type: ['boolean', 'null'], default: null, description: 'null: unless the metric ends in loss.' },
    resumeFromCheckpoint: {
      type: ['string', 'boolean', 'null'],
      default: null,
      description: 'A checkpoint to go on from; true: the last one of outputDir.',
    },
    seed: { type: 'integer', minimum: 0, default: 42, description: 'Of shuffling, dropout and initial weights.' },
    dataloaderNumWorkers: {
      type: 'integer',
      minimum: 0,
      default: 0,
      description: 'Micro-batches that are loaded side by side; 0 counts as 1.',
    },
    dataloaderPrefetchFactor: {
      type: ['integer', 'null'],
      minimum: 1,
      default: null,
      description: 'Micro-batches ahead for each of them; null: 2.',
    },
    dataloaderDropLast: { ...FLAG, description: 'Leave out the end of an epoch that does not fill a micro-batch on every rank.' },
    reportTo: {
      type: ['string', 'array'],
      items: { enum: ['tensorboard', 'csv', 'wandb', 'none'] },
      default: 'none',
      description: 'Where rank 0 writes losses and rates: tensorboard, csv, wandb (offline), or a list of them.',
    },
    runName: { type: ['string', 'null'], default: null, description: 'Folder of this run in loggingDir; null: DeepSpeedJobName.' },
    disableTqdm: {
      type: ['boolean', 'null'],
      default: null,
      description: 'No progress bar but a line of JSON for each log; null: where stderr is no terminal.',
    },
    useCpu: { ...FLAG, description: 'Compute on the CPU though there is a GPU.' },
  },
  unsupported: {
    fsdp: 'sharding is ZeRO here: deepspeed with zero_optimization.stage',
    torchCompile: 'there is no graph compiler, kernels are fused by hand',
    pushToHub: 'saveModel() writes a directory; upload it with the Hub client',
    groupByLength: 'pack documents into rows instead (packDataset), which wastes nothing',
    autoFindBatchSize: 'memory is planned: deepspeed-ts plan says what fits',
    labelSmoothingFactor: 'the loss is plain cross-entropy',
    neftuneNoiseAlpha: 'it does not exist here',
    evaluationStrategy: 'the old spelling; write evalStrategy',
    tf32: 'matrix products in f32 are in f32; train in bf16 for speed',
  },
});

type Checked = ConfigOf<[typeof argumentsSection]>;

/** Every argument with its value in force. */
export type ResolvedArguments = Omit<Checked, 'reportTo'> & {
  readonly deepspeed: string | object | undefined;
  readonly reportTo: readonly string[];
};

/** Arguments of a Trainer. `deepspeed`: a config of DeepSpeed, by path or as an object, whose `"auto"` values the other arguments fill in. */
export type TrainingArguments = { readonly [K in keyof Checked]?: Checked[K] | undefined } & {
  readonly deepspeed?: string | object | undefined;
};

/** Arguments as given, with defaults filled in. */
export interface ReadArguments {
  readonly args: ResolvedArguments;
  /** Which of them were given. */
  readonly given: ReadonlySet<string>;
}

/** @throws ConfigError listing every problem, with the nearest name for one that is unknown */
export function readArguments({ deepspeed, ...rest }: TrainingArguments): ReadArguments {
  const { reportTo, ...checked } = check(rest);
  const given = new Set(Object.keys(rest).filter((name) => rest[name as keyof typeof rest] !== undefined));
  const reports = (typeof reportTo === 'string' ? [reportTo] : (reportTo as readonly string[])).filter((name) => name !== 'none');
  const args = { ...checked, deepspeed, reportTo: reports, ...bestOf(checked) };
  const problems = contradictions(args, given);
  if (problems.length > 0) throw new ConfigError(problems.map((problem) => `args.${problem}`));
  return { args, given };
}

function check(raw: object): Checked {
  try {
    return composeConfig([argumentsSection], raw);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(error.problems.map((problem) => `args.${problem}`));
  }
}

/** The metric that tells which checkpoint is best, where somebody wants to know. */
function bestOf({ metricForBestModel, greaterIsBetter, loadBestModelAtEnd, saveStrategy }: Omit<Checked, 'reportTo'>) {
  const metric = metricForBestModel ?? (loadBestModelAtEnd || saveStrategy === 'best' ? 'loss' : null);
  return { metricForBestModel: metric, greaterIsBetter: greaterIsBetter ?? (metric === null ? null : !metric.endsWith('loss')) };
}

function contradictions(args: ResolvedArguments, given: ReadonlySet<string>): string[] {
  const problems: string[] = [];
  const { evalStrategy, saveStrategy, loadBestModelAtEnd, bf16, fp16, maxSteps, warmupRatio } = args;
  if (bf16 && fp16) problems.push('bf16: bf16 and fp16 are both true; choose one');
  if (maxSteps === 0) problems.push('maxSteps: expected at least 1, or -1 to train for numTrainEpochs, got 0');
  if (warmupRatio !== null && given.has('warmupSteps'))
    problems.push('warmupRatio: warmupSteps says how long the warm-up is; leave one of them out');
  if (saveStrategy === 'best' && evalStrategy === 'no') problems.push("saveStrategy: 'best' needs an evalStrategy, got 'no'");
  if (loadBestModelAtEnd && saveStrategy !== 'best') {
    if (evalStrategy === 'no' || evalStrategy !== saveStrategy)
      problems.push(`loadBestModelAtEnd: needs an evalStrategy that equals saveStrategy, got '${evalStrategy}' and '${saveStrategy}'`);
    else if (evalStrategy === 'steps' && !isMultiple(args.saveSteps, args.evalSteps ?? args.loggingSteps))
      problems.push(
        `loadBestModelAtEnd: needs saveSteps to be a multiple of evalSteps, got ${args.saveSteps} and ${args.evalSteps ?? args.loggingSteps}`,
      );
  }
  for (const report of args.reportTo) {
    if (!['tensorboard', 'csv', 'wandb'].includes(report))
      problems.push(`reportTo: expected 'tensorboard', 'csv', 'wandb' or 'none', got '${report}'`);
  }
  return problems;
}

/** Shares of all steps are compared in millionths, as Hugging Face does. */
function isMultiple(a: number, b: number): boolean {
  if (a < 1 !== b < 1) return true;
  return a < 1 ? Math.round(a * 1e6) % Math.round(b * 1e6) === 0 : a % b === 0;
}

/** A value that JSON can hold, for trainer_state.json. */
export type JsonRecord = { readonly [key: string]: Json };

/** Something about a Trainer's own arguments or state is wrong. */
export class TrainerError extends DeepSpeedError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('ERR_TRAINER', message, options);
  }
}
