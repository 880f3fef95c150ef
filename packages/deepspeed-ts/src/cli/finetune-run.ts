import { DeepSpeedError, type QuantizedFormat, type TrainingData } from '@deepspeed-ts/core';
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  getPeftModel,
  type LoraConfig,
  loadDataset,
  type PretrainedModel,
  padCollator,
  type TokenDataset,
  type TokenSample,
  type TrainingArguments,
} from '@deepspeed-ts/transformers';
import { fileDataset } from '../data/file-dataset.js';
import { initialize } from '../initialize.js';
import { Trainer } from '../trainer.js';

/** What `deepspeed-ts finetune` was asked to do. */
export interface FinetuneOptions {
  readonly model: string;
  readonly data: string;
  readonly evalData: string | undefined;
  readonly out: string;
  readonly device: 'cpu' | 'cuda' | undefined;
  readonly maxLength: number | undefined;
  readonly pack: boolean;
  readonly streaming: boolean;
  readonly completionOnly: boolean;
  /** Threads that tokenise. */
  readonly threads: number;
  readonly resume: boolean;
  readonly lora: LoraConfig | undefined;
  readonly quantization: QuantizedFormat | undefined;
  readonly args: TrainingArguments;
}

/** Rows of this many tokens, where nobody says how long and the model takes as many. */
const LENGTH = 1024;

/** One rank of it. */
export async function finetune(options: FinetuneOptions): Promise<void> {
  const base = await AutoModelForCausalLM.fromPretrained(options.model, options.quantization && { quantization: options.quantization });
  const directory = base.directory ?? options.model;
  const tokenizer = await AutoTokenizer.fromPretrained(directory);
  const maxLength = lengthOf(options, base);
  const model = options.lora ? getPeftModel(base, options.lora) : base;
  const trainDataset = await trainingData(options, directory, maxLength);
  const evalDataset = options.evalData === undefined ? undefined : await load(options.evalData, options, directory, maxLength);
  if ('report' in trainDataset) tell(trainDataset as TokenDataset, options, maxLength);
  const { device } = options;
  const trainer = new Trainer<TokenSample>({
    model,
    args: options.args,
    trainDataset,
    ...(evalDataset && { evalDataset }),
    processingClass: tokenizer,
    dataCollator: padCollator({ padTokenId: tokenizer.padTokenId, padToMultipleOf: maxLength % 8 === 0 ? 8 : 1 }),
    initialize: (setup) => initialize({ ...setup, ...(device && { device }) } as Parameters<typeof initialize>[0]) as never,
  });
  try {
    await trainer.train({ resumeFromCheckpoint: options.resume });
    await trainer.saveModel(options.out);
    say(`Saved to ${options.out}`);
  } finally {
    await trainer.dispose();
    model.dispose();
  }
}

function lengthOf({ maxLength, model }: FinetuneOptions, { config: { maxPositions } }: PretrainedModel): number {
  if (maxLength === undefined) return Math.min(LENGTH, maxPositions);
  if (maxLength <= maxPositions) return maxLength;
  throw new DeepSpeedError('ERR_DATASET', `--max-length: ${model} takes at most ${maxPositions} tokens, got ${maxLength}`);
}

async function trainingData(options: FinetuneOptions, directory: string, maxLength: number): Promise<TrainingData<TokenSample>> {
  if (!options.streaming) return load(options.data, options, directory, maxLength);
  return fileDataset(options.data, {
    tokenizer: directory,
    maxLength,
    completionOnly: options.completionOnly,
    threads: Math.max(1, options.threads),
  });
}

function load(
  path: string,
  { pack, completionOnly, threads }: FinetuneOptions,
  directory: string,
  maxLength: number,
): Promise<TokenDataset> {
  return loadDataset(path, { tokenizer: directory, maxLength, pack, completionOnly, threads });
}

function tell({ report, length }: TokenDataset, { data, pack }: FinetuneOptions, maxLength: number): void {
  const { records, tokens, learned, truncated, split, leftOut } = report;
  const fill = pack ? `, ${Math.round((100 * tokens) / (length * maxLength))}% filled` : '';
  const also = [
    [truncated, 'cut'],
    [split, 'split'],
    [leftOut, 'left out'],
  ].flatMap(([count, what]) => (count === 0 ? [] : [`, ${count} ${what}`]));
  say(`${data}: ${records} records, ${tokens} tokens of which ${learned} are learned, in ${length} rows${fill}${also.join('')}`);
}

function say(text: string): void {
  if ((process.env.RANK ?? '0') === '0') process.stderr.write(`${text}\n`);
}
