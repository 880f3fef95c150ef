import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { Device } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { AutoModelForCausalLM, BYTE_VOCABULARY, writeByteTokenizer } from '@deepspeed-ts/transformers';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { CLI_PATH } from '../cli-path.js';
import { commands } from './commands.js';
import { main } from './main.js';

const folder = mkdtempSync(join(tmpdir(), 'finetune-'));
const [model, data] = [join(folder, 'model'), join(folder, 'train.jsonl')];

beforeAll(async () => {
  const config = {
    model_type: 'llama',
    vocab_size: BYTE_VOCABULARY,
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: 64,
    initializer_range: 0.1,
    eos_token_id: 256,
    tie_word_embeddings: true,
  };
  const made = await AutoModelForCausalLM.fromConfig(config, { device: new Device(cpuBackend()), seed: 1 });
  await made.savePretrained(model);
  made.dispose();
  await writeByteTokenizer(model);
  writeFileSync(data, Array.from({ length: 48 }, (_, i) => JSON.stringify({ prompt: `${i % 3} `, completion: `is ${i % 3}` })).join('\n'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const text = { out: '', err: '' };
beforeEach(() => {
  text.out = text.err = '';
  const listen = (stream: NodeJS.WriteStream, to: 'out' | 'err') =>
    vi.spyOn(stream, 'write').mockImplementation((chunk) => {
      text[to] += String(chunk);
      return true;
    });
  listen(process.stdout, 'out');
  listen(process.stderr, 'err');
});
afterEach(() => vi.restoreAllMocks());

const run = (...args: string[]) => main(args, { table: commands });
const logs = () =>
  text.out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>);

describe('finetune', () => {
  it('trains a directory into a directory, which then says what it has learned', async () => {
    const out = join(folder, 'out');
    const common = ['--model', model, '--data', data, '--eval-data', data, '--device', 'cpu', '--max-length', '32', '--lr', '1e-2'];
    expect(
      await run('finetune', ...common, '--out', out, '--epochs', '12', '--batch', '4', '--logging-steps', '6', '--threads', '0'),
      text.err,
    ).toBe(0);
    expect(text.err).toContain('48 records, 336 tokens of which 240 are learned, in 48 rows');
    const evaluated = logs().flatMap(({ eval_loss }) => eval_loss ?? []);
    expect(evaluated).toHaveLength(12);
    expect(evaluated.at(-1)!).toBeLessThan(0.1);
    expect(readdirSync(out).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']);

    text.out = '';
    expect(await run('generate', '--model', out, '--prompt', '2 ', '--device', 'cpu')).toBe(0);
    expect(text.out).toBe('is 2\n');
  });

  it('trains adapters beside weights in four bits, and generates with them', async () => {
    const out = join(folder, 'adapter');
    const args = [
      '--model',
      model,
      '--data',
      data,
      '--device',
      'cpu',
      '--max-length',
      '32',
      '--lr',
      '3e-2',
      '--epochs',
      '20',
      '--out',
      out,
    ];
    expect(
      await run('finetune', ...args, '--lora', '8', '--quantization', 'nf4', '--save-steps', '60', '--save-total-limit', '1'),
      text.err,
    ).toBe(0);
    expect(readdirSync(out).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'checkpoint-120',
      'latest',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const losses = logs().flatMap(({ loss }) => loss ?? []);
    expect(losses.at(-1)!).toBeLessThan(0.75 * losses[0]!);

    text.out = '';
    const say = ['generate', '--model', model, '--prompt', '2 ', '--device', 'cpu', '--max-new-tokens', '4'];
    expect(await run(...say)).toBe(0);
    const before = text.out;
    expect(await run(...say, '--adapter', out), text.err).toBe(0);
    expect(text.out.slice(before.length)).not.toBe(before);
  });

  it('on two ranks at stage 3, packed or streamed from threads, has the losses of one rank', async () => {
    const config = join(folder, 'ds.json');
    writeFileSync(config, JSON.stringify({ train_micro_batch_size_per_gpu: 'auto', zero_optimization: { stage: 3 } }));
    const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
    const program = [
      '--conditions=@deepspeed-ts/source',
      '--import',
      tsx,
      CLI_PATH,
      'finetune',
      '--model',
      model,
      '--data',
      data,
      '--device',
      'cpu',
      '--max-length',
      '24',
    ];
    const options = ['--steps', '4', '--logging-steps', '1', '--lr', '1e-2', '--deepspeed', config];
    const env = { ...process.env, NODE_OPTIONS: '' };
    for (const how of [['--pack'], ['--streaming', '--threads', '1']]) {
      const losses = await Promise.all(
        [1, 2].map(async (ranks) => {
          const own = ['--num_gpus', String(ranks), '--batch', String(4 / ranks), '--out', join(folder, `ranks-${ranks}`)];
          const { stdout } = await promisify(execFile)(process.execPath, [...program, ...options, ...how, ...own], { env });
          return stdout
            .trim()
            .split('\n')
            .flatMap((line) => (JSON.parse(line) as { loss?: number }).loss ?? []);
        }),
      );
      expect(losses[0]).toHaveLength(4);
      for (const [step, loss] of losses[0]!.entries()) expect(losses[1]![step]! / loss).toBeCloseTo(1, 4);
    }
  });

  it.each([
    [[], '--model is missing. deepspeed-ts finetune --help tells more'],
    [['--model', 'x'], '--data is missing'],
    [['--model', 'x', '--data', 'y', '--lr', 'fast'], "--lr: expected a number of at least 0, got 'fast'"],
    [['--model', 'x', '--data', 'y', '--lora', '0'], "--lora: expected a whole number of at least 1, got '0'"],
    [['--model', 'x', '--data', 'y', '--quantization', 'nf4'], '--quantization: weights that are kept as codes are not trained themselves'],
    [['--model', 'x', '--data', 'y', '--lora', '2', '--quantization', 'fp3'], "--quantization: expected nf4 or int8, got 'fp3'"],
    [['--model', 'x', '--data', 'y', '--streaming', '--pack'], '--streaming: packing looks at the lengths of all documents'],
    [['--modell', 'x'], "Unknown option '--modell'"],
  ])('%j is a wrong use', async (args, message) => {
    expect(await run('finetune', ...args)).toBe(2);
    expect(text.err).toContain(message);
  });

  it.each([
    ['data that is not there', () => ['--model', model, '--data', join(folder, 'none.jsonl')], 'none.jsonl: no such file'],
    ['rows that are too long', () => ['--model', model, '--data', data, '--max-length', '65'], '--max-length: '],
    ['a model that is not there', () => ['--model', join(folder, 'none'), '--data', data], 'none'],
  ])('%s is said', async (_, args, message) => {
    expect(await run('finetune', ...args(), '--device', 'cpu')).toBe(1);
    expect(text.err).toContain(message);
  });
});

describe('generate', () => {
  it('draws what a seed says', async () => {
    const args = [
      'generate',
      '--model',
      model,
      '--prompt',
      'a',
      '--max-new-tokens',
      '12',
      '--temperature',
      '1',
      '--device',
      'cpu',
      '--seed',
    ];
    const drawn = async (seed: string) => {
      text.out = '';
      expect(await run(...args, seed)).toBe(0);
      return text.out;
    };
    expect(await drawn('5')).toBe(await drawn('5'));
    expect(await drawn('6')).not.toBe(await drawn('5'));
  });

  it.each([
    [['--prompt', 'x'], '--model is missing'],
    [['--model', 'x', '--prompt', 'x', '--dtype', 'f64'], "--dtype: expected f32, bf16 or f16, got 'f64'"],
    [['--model', 'x', '--prompt', 'x', '--system', 'be kind'], '--system: needs --chat'],
  ])('%j is a wrong use', async (args, message) => {
    expect(await run('generate', ...args)).toBe(2);
    expect(text.err).toContain(message);
  });
});
