import { runDeepSpeedCommand } from '@deepspeed-ts/launcher';
import type { TrainingArguments } from '@deepspeed-ts/transformers';
import { CLI_PATH } from '../cli-path.js';
import type { FinetuneOptions } from './finetune-run.js';
import { UsageError } from './main.js';
import { needed, numberOf, parseOptions } from './options.js';

export const usage = `
Usage: deepspeed-ts finetune --model DIR --data FILE [options]

Trains a Hugging Face model on your data and writes a Hugging Face directory. Alone it trains on one device; with --num_gpus
on several, and under the deepspeed launcher on those that it starts.

Model
  --model DIR            a Hugging Face directory, or the id of a model on the Hub
  --lora R               train low-rank adapters of rank R instead of the weights; --out gets adapters in PEFT's format
  --lora-alpha A         default 2 R
  --lora-dropout P       default 0
  --lora-targets A,B     names of layers; default all linear layers but the head
  --quantization F       with --lora: keep the weights of the blocks as nf4 or int8 codes, a quarter or half of the memory

Data
  --data FILE            .jsonl, .json, .parquet or .txt, whose records have text, or prompt and completion, or messages
  --eval-data FILE       judge by this after each epoch, or every --eval-steps
  --max-length N         tokens of a row; default 1024, or what the model takes
  --pack                 put several documents into a row, none of which sees another
  --whole                learn prompts and what users say too, not answers alone
  --streaming            tokenise while training, for files larger than memory; not with --pack
  --threads N            threads that tokenise; default 2

Training
  --deepspeed FILE       DeepSpeed config; its "auto" values come from the options here
  --num_gpus N           ranks to start on this machine
  --out DIR              default finetuned
  --epochs N             default 3          --steps N              instead of epochs
  --batch N              default 8          --accumulate N         micro-batches of a step; default 1
  --lr X                 default 5e-5       --scheduler NAME       default linear; cosine, constant, ...
  --warmup X             steps, or a share of them                --weight-decay X       default 0
  --bf16 | --fp16        16-bit training    --gradient-checkpointing   less memory, a third more computation
  --logging-steps N      default 10         --eval-steps N         steps between evaluations
  --save-steps N         steps between checkpoints in --out; default: none but the model at the end
  --save-total-limit N   checkpoints that stay
  --resume               go on from the last checkpoint in --out
  --device cpu|cuda      default: the GPU where there is one
  --seed N               default 42
`;

const TEXT = { type: 'string' } as const;
const FLAG = { type: 'boolean' } as const;
const OPTIONS = {
  model: TEXT,
  lora: TEXT,
  'lora-alpha': TEXT,
  'lora-dropout': TEXT,
  'lora-targets': TEXT,
  quantization: TEXT,
  data: TEXT,
  'eval-data': TEXT,
  'max-length': TEXT,
  pack: FLAG,
  whole: FLAG,
  streaming: FLAG,
  threads: TEXT,
  deepspeed: TEXT,
  num_gpus: TEXT,
  out: TEXT,
  epochs: TEXT,
  steps: TEXT,
  batch: TEXT,
  accumulate: TEXT,
  lr: TEXT,
  scheduler: TEXT,
  warmup: TEXT,
  'weight-decay': TEXT,
  bf16: FLAG,
  fp16: FLAG,
  'gradient-checkpointing': FLAG,
  'logging-steps': TEXT,
  'eval-steps': TEXT,
  'save-steps': TEXT,
  'save-total-limit': TEXT,
  resume: FLAG,
  device: TEXT,
  seed: TEXT,
} as const;

export async function run(args: readonly string[]): Promise<number> {
  const values = parseOptions('finetune', args, OPTIONS);
  const ranks = numberOf('num_gpus', values.num_gpus, { least: 1, whole: true });
  const options = optionsOf(values);
  // The launcher's ranks have their place; this process is to become several.
  if (ranks !== undefined && ranks > 1) {
    if (process.env.RANK !== undefined)
      throw new UsageError('--num_gpus: the launcher has started the ranks already; give it to the launcher alone');
    return runDeepSpeedCommand(['--num_gpus', String(ranks), CLI_PATH, 'finetune', ...withoutRanks(args)]);
  }
  const { finetune } = await import('./finetune-run.js');
  await finetune(options);
  return 0;
}

type Values = ReturnType<typeof parseOptions<typeof OPTIONS>>;

function optionsOf(values: Values): FinetuneOptions {
  const count = (name: keyof Values & string, least = 1) => numberOf(name, values[name] as string | undefined, { least, whole: true });
  const { device, streaming = false, pack = false } = values;
  if (device !== undefined && device !== 'cpu' && device !== 'cuda')
    throw new UsageError(`--device: expected cpu or cuda, got '${device}'`);
  if (streaming && pack)
    throw new UsageError('--streaming: packing looks at the lengths of all documents; leave --pack or --streaming out');
  const rank = count('lora');
  const { quantization } = values;
  if (quantization !== undefined && rank === undefined)
    throw new UsageError('--quantization: weights that are kept as codes are not trained themselves; give --lora too');
  if (quantization !== undefined && quantization !== 'nf4' && quantization !== 'int8')
    throw new UsageError(`--quantization: expected nf4 or int8, got '${quantization}'`);
  const alpha = numberOf('lora-alpha', values['lora-alpha']);
  const targets = values['lora-targets']?.split(',').filter((name) => name !== '');
  return {
    model: needed('finetune', 'model', values.model),
    data: needed('finetune', 'data', values.data),
    evalData: values['eval-data'],
    out: values.out ?? 'finetuned',
    device,
    maxLength: count('max-length', 2),
    pack,
    streaming,
    completionOnly: !values.whole,
    threads: count('threads', 0) ?? 2,
    resume: values.resume ?? false,
    quantization,
    lora:
      rank === undefined
        ? undefined
        : {
            r: rank,
            loraAlpha: alpha ?? 2 * rank,
            loraDropout: numberOf('lora-dropout', values['lora-dropout']) ?? 0,
            ...(targets && { targetModules: targets }),
          },
    args: argumentsOf(values, count),
  };
}

function argumentsOf(values: Values, count: (name: keyof Values & string, least?: number) => number | undefined): TrainingArguments {
  const saveSteps = count('save-steps');
  const evalSteps = count('eval-steps');
  const evalStrategy = evalSteps !== undefined ? 'steps' : 'epoch';
  return {
    deepspeed: values.deepspeed,
    outputDir: values.out ?? 'finetuned',
    numTrainEpochs: numberOf('epochs', values.epochs),
    maxSteps: count('steps'),
    perDeviceTrainBatchSize: count('batch'),
    perDeviceEvalBatchSize: count('batch'),
    gradientAccumulationSteps: count('accumulate'),
    learningRate: numberOf('lr', values.lr),
    lrSchedulerType: values.scheduler as TrainingArguments['lrSchedulerType'],
    warmupSteps: numberOf('warmup', values.warmup),
    weightDecay: numberOf('weight-decay', values['weight-decay']),
    bf16: values.bf16,
    fp16: values.fp16,
    gradientCheckpointing: values['gradient-checkpointing'],
    loggingSteps: count('logging-steps') ?? 10,
    ...(values['eval-data'] !== undefined && { evalStrategy, evalSteps }),
    saveStrategy: saveSteps === undefined ? 'no' : 'steps',
    saveSteps,
    saveTotalLimit: count('save-total-limit'),
    seed: count('seed', 0),
  };
}

/** The arguments for each rank, which starts no more of them. */
function withoutRanks(args: readonly string[]): string[] {
  return args.filter((arg, i) => !arg.startsWith('--num_gpus') && args[i - 1] !== '--num_gpus');
}
