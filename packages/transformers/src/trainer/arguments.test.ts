import { expect, it } from 'vitest';
import { readArguments, type TrainingArguments } from './arguments.js';

it("has the defaults of Hugging Face's TrainingArguments", () => {
  // transformers 5.17, training_args.py.
  expect(readArguments({}).args).toMatchObject({
    outputDir: 'trainer_output',
    perDeviceTrainBatchSize: 8,
    perDeviceEvalBatchSize: 8,
    gradientAccumulationSteps: 1,
    numTrainEpochs: 3,
    maxSteps: -1,
    learningRate: 5e-5,
    lrSchedulerType: 'linear',
    warmupSteps: 0,
    optim: 'adamw_torch_fused',
    weightDecay: 0,
    adamBeta1: 0.9,
    adamBeta2: 0.999,
    adamEpsilon: 1e-8,
    maxGradNorm: 1,
    bf16: false,
    fp16: false,
    gradientCheckpointing: false,
    loggingStrategy: 'steps',
    loggingSteps: 500,
    loggingFirstStep: false,
    evalStrategy: 'no',
    evalSteps: null,
    evalDelay: 0,
    saveStrategy: 'steps',
    saveSteps: 500,
    saveTotalLimit: null,
    loadBestModelAtEnd: false,
    metricForBestModel: null,
    greaterIsBetter: null,
    seed: 42,
    dataloaderNumWorkers: 0,
    dataloaderDropLast: false,
  });
});

it('knows which arguments were given, and which metric is best', () => {
  const { args, given } = readArguments({
    learningRate: 1,
    weightDecay: undefined,
    evalStrategy: 'epoch',
    saveStrategy: 'epoch',
    loadBestModelAtEnd: true,
  });
  expect([...given]).toEqual(['learningRate', 'evalStrategy', 'saveStrategy', 'loadBestModelAtEnd']);
  expect(args).toMatchObject({ metricForBestModel: 'loss', greaterIsBetter: false, reportTo: [] });
  expect(readArguments({ metricForBestModel: 'eval_accuracy', reportTo: ['csv', 'none'] }).args).toMatchObject({
    greaterIsBetter: true,
    reportTo: ['csv'],
  });
});

it.each<[object, string]>([
  [{ per_device_train_batch_size: 4 }, 'args.per_device_train_batch_size: unknown key; did you mean "perDeviceTrainBatchSize"?'],
  [{ learningrate: 1 }, 'did you mean "learningRate"?'],
  [{ perDeviceTrainBatchSize: 0 }, 'args.perDeviceTrainBatchSize: expected an integer >= 1, got 0'],
  [{ lrSchedulerType: 'cosin' }, 'args.lrSchedulerType: expected '],
  [{ lrSchedulerType: 'reduce_lr_on_plateau' }, 'it follows metrics, not steps, and does not exist here'],
  [{ fsdp: 'full_shard' }, 'sharding is ZeRO here'],
  [{ bf16: true, fp16: true }, 'args.bf16: bf16 and fp16 are both true; choose one'],
  [{ maxSteps: 0 }, 'args.maxSteps: expected at least 1, or -1 to train for numTrainEpochs, got 0'],
  [{ warmupSteps: 10, warmupRatio: 0.1 }, 'args.warmupRatio: warmupSteps says how long the warm-up is; leave one of them out'],
  [{ loadBestModelAtEnd: true }, "args.loadBestModelAtEnd: needs an evalStrategy that equals saveStrategy, got 'no' and 'steps'"],
  [
    { loadBestModelAtEnd: true, evalStrategy: 'steps', evalSteps: 3, saveSteps: 10 },
    'needs saveSteps to be a multiple of evalSteps, got 10 and 3',
  ],
  [{ saveStrategy: 'best' }, "args.saveStrategy: 'best' needs an evalStrategy, got 'no'"],
  [{ reportTo: 'comet' }, "args.reportTo: expected 'tensorboard', 'csv', 'wandb' or 'none', got 'comet'"],
])('%j is refused', (args, message) => {
  expect(() => readArguments(args as TrainingArguments)).toThrow(message);
});

it('lists every problem', () => {
  expect(() => readArguments({ learningrate: 1, maxSteps: 1.5 } as TrainingArguments)).toThrow(
    /2 problems.*\n- args\.learningrate.*\n- args\.maxSteps/,
  );
});
