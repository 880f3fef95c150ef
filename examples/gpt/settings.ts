import { type DeepSpeedConfig, loadConfig } from 'deepspeed-ts';
import { ArgumentError, type Arguments, type FlagName } from './args.js';

/** How to train: a config to initialize with, and for how many steps. */
export interface Settings {
  readonly config: object;
  readonly steps: number;
  /** Windows of a micro-batch on each rank. */
  readonly batch: number;
  readonly accumulation: number;
}

/**
 * Joins flags and the DeepSpeed config, if there is one. The config decides what it speaks of; flags fill in its `"auto"` values and
 * the sections that it leaves out (optimizer, scheduler).
 *
 * @throws ArgumentError where a flag that the user gave says another thing than the config.
 */
export function settingsOf(args: Arguments, worldSize: number): Settings {
  const optimizer = { type: 'AdamW', params: { lr: args.lr, betas: [0.9, args.beta2], weight_decay: args['weight-decay'] } };
  const scheduler = schedulerOf(args);
  const own = { train_micro_batch_size_per_gpu: args.batch, gradient_clipping: 1, optimizer, ...(scheduler && { scheduler }) };
  const loaded = loadConfig(args.deepspeed ?? own, worldSize, { resolveAuto: (key) => automatic(args)[key] });
  checkAgreement(args, loaded);
  return {
    config: {
      ...loaded,
      optimizer: loaded.optimizer ?? optimizer,
      scheduler: loaded.scheduler ?? scheduler,
      // Lines of JSON are all that a program wants to read.
      ...(args.json && { steps_per_print: null }),
    },
    steps: totalSteps(loaded) ?? args.steps,
    batch: loaded.train_micro_batch_size_per_gpu,
    accumulation: loaded.gradient_accumulation_steps,
  };
}

/** Linear warm-up to --lr, then half a cosine down to --min-lr. Nothing where the rate stays the same. */
function schedulerOf({ warmup, steps, lr, 'min-lr': minLr }: Arguments): object | undefined {
  if (warmup === 0 && minLr === lr) return undefined;
  const params = {
    total_num_steps: steps,
    warmup_num_steps: Math.max(1, warmup),
    warmup_type: 'linear',
    cos_min_ratio: lr === 0 ? 1 : minLr / lr,
  };
  return { type: 'WarmupCosineLR', params };
}

/** What `"auto"` stands for, by key. The batch size that is left open follows from the others. */
function automatic(args: Arguments): Record<string, unknown> {
  return {
    train_batch_size: null,
    train_micro_batch_size_per_gpu: args.batch,
    gradient_accumulation_steps: 1,
    gradient_clipping: 1,
    'optimizer.params.lr': args.lr,
    'optimizer.params.betas': [0.9, args.beta2],
    'optimizer.params.weight_decay': args['weight-decay'],
    'scheduler.params.total_num_steps': args.steps,
    'scheduler.params.warmup_num_steps': Math.max(1, args.warmup),
    'scheduler.params.warmup_max_lr': args.lr,
    'scheduler.params.cos_min_ratio': args['min-lr'] / args.lr,
  };
}

function totalSteps({ scheduler }: DeepSpeedConfig): number | undefined {
  return scheduler && 'total_num_steps' in scheduler.params ? scheduler.params.total_num_steps : undefined;
}

function checkAgreement(args: Arguments, config: DeepSpeedConfig): void {
  const problems: string[] = [];
  const check = (flag: FlagName, key: string, inConfig: number | undefined) => {
    const wanted = args[flag] as number;
    if (inConfig === undefined || !args.given.has(flag) || Math.abs(inConfig - wanted) <= 1e-9 * Math.abs(wanted)) return;
    problems.push(
      `--${flag} ${wanted}: ${args.deepspeed} says ${inConfig} (${key}); change one of them, or write "auto" there for the flag to decide`,
    );
  };
  check('batch', 'train_micro_batch_size_per_gpu', config.train_micro_batch_size_per_gpu);
  const { optimizer, scheduler } = config;
  if (optimizer) {
    const { lr, weight_decay } = optimizer.params;
    check('lr', 'optimizer.params.lr', lr);
    if ('betas' in optimizer.params) check('beta2', 'optimizer.params.betas', optimizer.params.betas[1]);
    check('weight-decay', 'optimizer.params.weight_decay', weight_decay);
  }
  check('steps', 'scheduler.params.total_num_steps', totalSteps(config));
  if (scheduler && 'warmup_num_steps' in scheduler.params)
    check('warmup', 'scheduler.params.warmup_num_steps', scheduler.params.warmup_num_steps);
  if (scheduler?.type === 'WarmupCosineLR') {
    const lr = optimizer?.params.lr ?? args.lr;
    check('min-lr', 'scheduler.params.cos_min_ratio times lr', scheduler.params.cos_min_ratio * lr);
  }
  if (problems.length > 0) throw new ArgumentError(problems);
}
