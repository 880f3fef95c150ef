import { describe, expect, it } from 'vitest';
import { readArguments, type TrainingArguments } from './arguments.js';
import { completeConfig, type RunFacts } from './complete-config.js';

function complete(config: object, args: TrainingArguments = {}, facts: Partial<RunFacts> = {}) {
  const locate = (path: readonly (string | number)[]) => `ds.json:${path.length}`;
  const known = { ...readArguments(args), samples: 100, hasTrainingData: true, hiddenSize: 10, ...facts };
  return completeConfig(config as Record<string, unknown>, { worldSize: 2, locate }, known);
}

const ARGUMENTS: TrainingArguments = {
  perDeviceTrainBatchSize: 4,
  gradientAccumulationSteps: 3,
  learningRate: 2e-4,
  weightDecay: 0.1,
  adamBeta1: 0.8,
  adamBeta2: 0.95,
  adamEpsilon: 1e-6,
  maxGradNorm: 0.5,
  numTrainEpochs: 2,
  warmupSteps: 7,
  bf16: true,
};

it('fills every "auto" of Hugging Face\'s integration from the arguments', () => {
  const auto = 'auto';
  const { config, schedule } = complete(
    {
      train_batch_size: auto,
      train_micro_batch_size_per_gpu: auto,
      gradient_accumulation_steps: auto,
      gradient_clipping: auto,
      optimizer: { type: 'AdamW', params: { lr: auto, betas: auto, eps: auto, weight_decay: auto } },
      scheduler: {
        type: 'WarmupDecayLR',
        params: { warmup_min_lr: auto, warmup_max_lr: auto, warmup_num_steps: auto, total_num_steps: auto },
      },
      bf16: { enabled: auto },
      fp16: { enabled: auto },
      zero_optimization: {
        stage: 3,
        reduce_bucket_size: auto,
        stage3_prefetch_bucket_size: auto,
        stage3_param_persistence_threshold: auto,
      },
    },
    ARGUMENTS,
  );
  expect(config).toEqual({
    train_batch_size: 24,
    train_micro_batch_size_per_gpu: 4,
    gradient_accumulation_steps: 3,
    gradient_clipping: 0.5,
    optimizer: { type: 'AdamW', params: { lr: 2e-4, betas: [0.8, 0.95], eps: 1e-6, weight_decay: 0.1 } },
    // 100 samples are 13 micro-batches of 4 on 2 ranks, so 5 steps in an epoch.
    scheduler: { type: 'WarmupDecayLR', params: { warmup_min_lr: 0, warmup_max_lr: 2e-4, warmup_num_steps: 7, total_num_steps: 10 } },
    bf16: { enabled: true },
    fp16: { enabled: false },
    zero_optimization: { stage: 3, reduce_bucket_size: 100, stage3_prefetch_bucket_size: 90, stage3_param_persistence_threshold: 100 },
  });
  expect(schedule).toBeUndefined();
});

it('makes a whole config of the arguments alone', () => {
  const { config, schedule, length } = complete(
    {},
    { ...ARGUMENTS, gradientCheckpointing: true, dataloaderDropLast: true, reportTo: 'csv', runName: 'mine', outputDir: 'out' },
  );
  expect(config).toEqual({
    train_batch_size: 24,
    train_micro_batch_size_per_gpu: 4,
    gradient_accumulation_steps: 3,
    gradient_clipping: 0.5,
    optimizer: { type: 'AdamW', params: { lr: 2e-4, betas: [0.8, 0.95], eps: 1e-6, weight_decay: 0.1 } },
    bf16: { enabled: true },
    activation_checkpointing: { enabled: true },
    dataloader_drop_last: true,
    csv_monitor: { enabled: true, output_path: 'out/runs', job_name: 'mine' },
  });
  expect(length).toEqual({ batchesPerEpoch: 12, stepsPerEpoch: 4, totalSteps: 8, warmupSteps: 7, epochs: 2 });
  expect(schedule!.lr(0, 7)).toBe(1);
});

it('lets a config decide where no argument was given', () => {
  const config = {
    train_batch_size: 32,
    train_micro_batch_size_per_gpu: 8,
    gradient_clipping: 2,
    optimizer: { type: 'Lion', params: { lr: 1e-3 } },
    bf16: { enabled: true },
  };
  const run = complete(config);
  expect(run.config).toEqual({ ...config, gradient_accumulation_steps: 2 });
  expect(run.sizes).toEqual({ micro: 8, accumulation: 2, ranks: 2, dropLast: false });
  expect(complete({ train_batch_size: 6 }).sizes).toMatchObject({ micro: 3, accumulation: 1 });
  expect(complete({ train_batch_size: 12 }, { gradientAccumulationSteps: 2 }).sizes).toMatchObject({ micro: 3, accumulation: 2 });
});

it('lists every value that contradicts an argument which was given, with its place', () => {
  const config = {
    train_micro_batch_size_per_gpu: 2,
    train_batch_size: 10,
    gradient_clipping: 1,
    optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.999], weight_decay: 0.1 } },
    scheduler: { type: 'WarmupLR', params: { warmup_num_steps: 3 } },
    bf16: { enabled: false },
  };
  let problems: readonly string[] = [];
  try {
    complete(config, { ...ARGUMENTS, lrSchedulerType: 'cosine' });
  } catch (error) {
    ({ problems } = error as { problems: readonly string[] });
  }
  expect(problems).toEqual([
    'ds.json:1: train_micro_batch_size_per_gpu: the config has 2, the arguments perDeviceTrainBatchSize = 4',
    'ds.json:1: train_batch_size: the config has 10, the arguments perDeviceTrainBatchSize * gradientAccumulationSteps * ranks = 2 * 3 * 2 = 12',
    'ds.json:3: optimizer.params.lr: the config has 0.001, the arguments learningRate = 0.0002',
    'ds.json:3: optimizer.params.betas: the config has [0.9,0.999], the arguments adamBeta1, adamBeta2 = [0.8,0.95]',
    'ds.json:1: gradient_clipping: the config has 1, the arguments maxGradNorm = 0.5',
    'ds.json:2: bf16.enabled: the config has false, the arguments bf16 = true',
    'ds.json:2: scheduler.type: the config has "WarmupLR", the arguments lrSchedulerType = cosine; leave the scheduler out of the config, or the argument',
    'ds.json:3: scheduler.params.warmup_num_steps: the config has 3, the arguments warmupSteps, warmupRatio = 7',
    'deepspeed: values of the config contradict arguments of the Trainer; give them in one place, or write "auto" in the config',
  ]);
});

describe('what nobody can know is asked for', () => {
  it('the width of a model without a config', () => {
    expect(() => complete({ zero_optimization: { stage: 2, reduce_bucket_size: 'auto' } }, {}, { hiddenSize: undefined })).toThrow(
      'zero_optimization.reduce_bucket_size: "auto" follows from the width of the model, which does not say it in its config; give numbers',
    );
  });

  it('the length of a stream', () => {
    expect(() => complete({}, {}, { samples: undefined })).toThrow('args.maxSteps: the training data is a stream');
    expect(complete({}, { maxSteps: 9, warmupRatio: 0.5 }, { samples: undefined }).length).toMatchObject({
      totalSteps: 9,
      warmupSteps: 5,
      epochs: 1,
    });
  });
});

it("leaves the caller's config as it was", () => {
  const config = { optimizer: { type: 'AdamW', params: { lr: 'auto' } } };
  complete(config);
  expect(config).toEqual({ optimizer: { type: 'AdamW', params: { lr: 'auto' } } });
});
