import { type CompletedConfig, ConfigError, type ConfigPlace } from '@deepspeed-ts/core';
import { type ReadArguments, type ResolvedArguments, TrainerError } from './arguments.js';
import { ConfigNode } from './config-node.js';
import { type RunLength, runLength, type StepSizes } from './run-length.js';
import { hfSchedule, type ScheduleName } from './schedules.js';

/** What a Trainer knows of a run besides its arguments. */
export interface RunFacts extends ReadArguments {
  /** Samples of the training data, where somebody knows; `undefined` also where there is none. */
  readonly samples: number | undefined;
  readonly hasTrainingData: boolean;
  /** The width of the model, where it says. */
  readonly hiddenSize: number | undefined;
}

export interface CompletedRun extends CompletedConfig {
  readonly sizes: StepSizes;
  readonly length: RunLength;
}

/** The schedulers of DeepSpeed that do what one of Hugging Face's names says. */
const SAME_SCHEDULE: Readonly<Record<string, ScheduleName>> = {
  WarmupLR: 'constant_with_warmup',
  WarmupDecayLR: 'linear',
  WarmupCosineLR: 'cosine',
};

/**
 * A DeepSpeed config and a Trainer's arguments become one config. `"auto"` is filled in from the arguments by the rules of Hugging
 * Face's integration; what the config does not mention comes from the arguments; an argument that nobody gave follows the config.
 *
 * @throws ConfigError that lists every value of the config which contradicts an argument that was given
 */
export function completeConfig(raw: Readonly<Record<string, unknown>>, place: ConfigPlace, facts: RunFacts): CompletedRun {
  const merge = new Merge(raw, place, facts);
  const { args } = facts;
  const sizes = merge.sizes();
  const length = runLength(args, facts.samples, sizes) ?? unknownLength(args, facts);
  merge.optimizer();
  merge.precision();
  merge.zero(facts.hiddenSize);
  merge.rest();
  const schedule = merge.scheduler(length);
  merge.finish();
  return { config: merge.config, schedule, sizes, length };
}

function unknownLength(args: ResolvedArguments, { hasTrainingData }: RunFacts): RunLength {
  if (!hasTrainingData)
    return { batchesPerEpoch: undefined, stepsPerEpoch: undefined, totalSteps: 1, warmupSteps: 0, epochs: args.numTrainEpochs };
  throw new TrainerError('args.maxSteps: the training data is a stream, whose length nobody knows; say how many steps to train');
}

type Argument = keyof ResolvedArguments & string;

class Merge {
  readonly #node: ConfigNode;
  readonly #mismatches: string[] = [];

  constructor(
    raw: Readonly<Record<string, unknown>>,
    private readonly place: ConfigPlace,
    private readonly facts: RunFacts,
  ) {
    this.#node = new ConfigNode(raw);
  }

  get config(): Readonly<Record<string, unknown>> {
    return this.#node.root;
  }

  /** Two of the three sizes of a batch give the third, and arguments that were not given give way. */
  sizes(): StepSizes {
    const { args } = this.facts;
    const ranks = this.place.worldSize;
    const asked = this.#node.get('train_batch_size');
    const total = typeof asked === 'number' ? asked : undefined;
    const open = (path: string, argument: Argument) => !this.#given(argument) && !isNumber(this.#node.get(path));
    const openMicro = open('train_micro_batch_size_per_gpu', 'perDeviceTrainBatchSize');
    const openSteps = open('gradient_accumulation_steps', 'gradientAccumulationSteps');
    let micro = this.#settle('train_micro_batch_size_per_gpu', args.perDeviceTrainBatchSize, 'perDeviceTrainBatchSize');
    let accumulation = this.#settle('gradient_accumulation_steps', args.gradientAccumulationSteps, 'gradientAccumulationSteps');
    if (total !== undefined && openMicro) {
      const samples = total / (ranks * (openSteps ? 1 : accumulation));
      if (Number.isInteger(samples)) micro = samples;
    } else if (total !== undefined && openSteps) {
      const steps = total / (ranks * micro);
      if (Number.isInteger(steps)) accumulation = steps;
    }
    this.#node.set('train_micro_batch_size_per_gpu', micro);
    this.#node.set('gradient_accumulation_steps', accumulation);
    const product = micro * accumulation * ranks;
    if (total !== undefined && total !== product)
      this.#mismatch(
        'train_batch_size',
        total,
        `perDeviceTrainBatchSize * gradientAccumulationSteps * ranks = ${micro} * ${accumulation} * ${ranks} = ${product}`,
      );
    this.#node.set('train_batch_size', product);
    const dropLast = this.#settle('dataloader_drop_last', args.dataloaderDropLast, 'dataloaderDropLast');
    return { micro, accumulation, ranks, dropLast };
  }

  optimizer(): void {
    const { args } = this.facts;
    if (!this.#node.has('optimizer')) {
      this.#node.set('optimizer', optimizerOf(args));
    } else {
      this.#fill('optimizer.params.lr', args.learningRate, 'learningRate');
      this.#fill('optimizer.params.betas', [args.adamBeta1, args.adamBeta2], 'adamBeta1', 'adamBeta2');
      this.#fill('optimizer.params.eps', args.adamEpsilon, 'adamEpsilon');
      this.#fill('optimizer.params.weight_decay', args.weightDecay, 'weightDecay');
    }
    this.#fill('gradient_clipping', args.maxGradNorm, 'maxGradNorm', true);
  }

  precision(): void {
    const { args } = this.facts;
    for (const name of ['bf16', 'fp16'] as const) this.#fill(`${name}.enabled`, args[name], name);
  }

  /** Sizes of buckets that Hugging Face derives from the width of the model. */
  zero(hiddenSize: number | undefined): void {
    const sizes = {
      reduce_bucket_size: (h: number) => h * h,
      stage3_prefetch_bucket_size: (h: number) => Math.floor(0.9 * h * h),
      stage3_param_persistence_threshold: (h: number) => 10 * h,
    };
    const wanted = Object.entries(sizes).filter(([key]) => this.#node.get(`zero_optimization.${key}`) === 'auto');
    if (wanted.length === 0) return;
    if (hiddenSize === undefined) {
      const keys = wanted.map(([key]) => `zero_optimization.${key}`).join(', ');
      throw new ConfigError([`${keys}: "auto" follows from the width of the model, which does not say it in its config; give numbers`]);
    }
    for (const [key, size] of wanted) this.#node.set(`zero_optimization.${key}`, size(hiddenSize));
  }

  rest(): void {
    const { args } = this.facts;
    this.#fill('activation_checkpointing.enabled', args.gradientCheckpointing, 'gradientCheckpointing');
    this.#fill('dataloader_drop_last', args.dataloaderDropLast, 'dataloaderDropLast');
    for (const [report, section] of [
      ['tensorboard', 'tensorboard'],
      ['csv', 'csv_monitor'],
      ['wandb', 'wandb'],
    ] as const) {
      if (!args.reportTo.includes(report) || this.#node.has(section)) continue;
      const job = args.runName === null ? {} : { job_name: args.runName };
      this.#node.set(section, { enabled: true, output_path: args.loggingDir ?? `${args.outputDir}/runs`, ...job });
    }
  }

  /** The config's scheduler with its `"auto"` filled in; where it has none, the schedule that the arguments name. */
  scheduler(length: RunLength) {
    const { args } = this.facts;
    if (!this.#node.has('scheduler')) return hfSchedule(args.lrSchedulerType, length, args.lrSchedulerKwargs);
    const type = this.#node.get('scheduler.type');
    if (this.#given('lrSchedulerType') && SAME_SCHEDULE[String(type)] !== args.lrSchedulerType)
      this.#mismatch(
        'scheduler.type',
        type,
        `lrSchedulerType = ${args.lrSchedulerType}; leave the scheduler out of the config, or the argument`,
      );
    if (this.#node.get('scheduler.params.warmup_min_lr') === 'auto') this.#node.set('scheduler.params.warmup_min_lr', 0);
    this.#fill('scheduler.params.warmup_max_lr', this.#node.get('optimizer.params.lr') ?? args.learningRate, 'learningRate');
    this.#fill('scheduler.params.total_num_steps', length.totalSteps, 'maxSteps', 'numTrainEpochs');
    // No warm-up counts as one step of it: DeepSpeed takes both for two.
    this.#fill('scheduler.params.warmup_num_steps', Math.max(1, length.warmupSteps), 'warmupSteps', 'warmupRatio');
    return undefined;
  }

  /** @throws ConfigError where something does not fit together */
  finish(): void {
    if (this.#mismatches.length === 0) return;
    throw new ConfigError([
      ...this.#mismatches,
      'deepspeed: values of the config contradict arguments of the Trainer; give them in one place, or write "auto" in the config',
    ]);
  }

  /** The value in force of something that both name: that of the argument where the config has none, or says "auto". */
  #settle<T>(path: string, value: T, ...names: Argument[]): T {
    const there = this.#node.get(path);
    if (there === 'auto') this.#node.set(path, value);
    if (there === 'auto' || there == null) return value;
    if (JSON.stringify(there) !== JSON.stringify(value) && names.some((name) => this.#given(name)))
      this.#mismatch(path, there, `${names.map((name) => `${name}`).join(', ')} = ${JSON.stringify(value)}`);
    return there as T;
  }

  /** The same, and an argument that was given (or `always`) is set where the config has nothing. */
  #fill(path: string, value: unknown, ...names: (Argument | true)[]): void {
    const own = names.filter((name): name is Argument => name !== true);
    this.#settle(path, value, ...own);
    if (!this.#node.has(path) && (names.includes(true) || own.some((name) => this.#given(name)))) this.#node.set(path, value);
  }

  #given(name: Argument): boolean {
    return this.facts.given.has(name);
  }

  #mismatch(path: string, value: unknown, argument: string): void {
    const where = this.place.locate?.(path.split('.'));
    this.#mismatches.push(
      `${where === undefined ? '' : `${where}: `}${path}: the config has ${JSON.stringify(value)}, the arguments ${argument}`,
    );
  }
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number';
}

/** The optimizer that arguments name, as a config does. */
function optimizerOf(args: ResolvedArguments): object {
  const { optim, learningRate: lr, weightDecay: weight_decay, adamBeta1, adamBeta2, adamEpsilon: eps } = args;
  const betas = [adamBeta1, adamBeta2];
  switch (optim) {
    case 'sgd':
      return { type: 'SGD', params: { lr, weight_decay } };
    case 'adagrad':
      return { type: 'Adagrad', params: { lr, weight_decay } };
    case 'lion_32bit':
      return { type: 'Lion', params: { lr, betas, weight_decay } };
    case 'adamw_8bit':
    case 'adamw_bnb_8bit':
      return { type: 'AdamW8bit', params: { lr, betas, eps, weight_decay } };
    default:
      return { type: 'AdamW', params: { lr, betas, eps, weight_decay } };
  }
}
