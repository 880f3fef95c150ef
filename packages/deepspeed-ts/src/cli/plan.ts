import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DeepSpeedError } from '@deepspeed-ts/core';
import { readConfig } from '../config/source.js';
import { DoesNotFitError, formatPlan, type MemoryPlan, type PlanOptions, plan } from '../plan/index.js';
import { UsageError } from './main.js';
import { needed, numberOf, parseOptions } from './options.js';

export const usage = `
Usage: deepspeed-ts plan --model DIR --config FILE --world N [options]

Says what a training run takes of each rank's memory, by kind, and when it takes most. Allocates nothing and needs no GPU.

  --model DIR          a Hugging Face directory; only its config.json is read
  --config FILE        the DeepSpeed config
  --world N            ranks of the run
  --gpu-memory SIZE    memory of one device, such as 80GiB: what does not fit is refused (exit code 1), with the cheapest change that fits
  --micro-batch N      instead of train_micro_batch_size_per_gpu of the config, whose train_batch_size stays
  --seq N              tokens of a sequence; default: the most that the model takes
  --recompute          recompute blocks in backward instead of keeping their activations
  --device cuda|cpu    what it will run on; default cuda
  --json               print JSON: {"fits", "plan", "proposal"}
`;

const TEXT = { type: 'string' } as const;
const FLAG = { type: 'boolean' } as const;
const OPTIONS = {
  model: TEXT,
  config: TEXT,
  world: TEXT,
  'gpu-memory': TEXT,
  'micro-batch': TEXT,
  seq: TEXT,
  recompute: FLAG,
  device: TEXT,
  json: FLAG,
} as const;

export async function run(args: readonly string[]): Promise<number> {
  const { options, json } = read(args);
  try {
    print(await plan(options), json);
    return 0;
  } catch (error) {
    if (!(error instanceof DoesNotFitError)) throw error;
    print(error.plan, json, error);
    return 1;
  }
}

function print(planned: MemoryPlan, json: boolean, refused?: DoesNotFitError): void {
  if (json) {
    const proposal = refused?.proposal ?? null;
    process.stdout.write(`${JSON.stringify({ fits: !refused, plan: planned, proposal }, null, 2)}\n`);
    return;
  }
  process.stdout.write(`${formatPlan(planned)}\n`);
  if (refused) process.stderr.write(`\ndeepspeed-ts plan: ${refused.message}\n`);
}

function read(args: readonly string[]): { options: PlanOptions; json: boolean } {
  const values = parseOptions('plan', args, OPTIONS);
  const count = (name: 'world' | 'seq' | 'micro-batch') => numberOf(name, values[name], { least: 1, whole: true });
  const [model, file] = [needed('plan', 'model', values.model), needed('plan', 'config', values.config)];
  needed('plan', 'world', values.world);
  const { device = 'cuda', 'gpu-memory': memory, recompute, json = false } = values;
  if (device !== 'cuda' && device !== 'cpu') throw new UsageError(`--device: expected cuda or cpu, got '${device}'`);
  const [worldSize, sequenceLength, microBatch] = [count('world')!, count('seq'), count('micro-batch')];
  const options: PlanOptions = {
    modelConfig: modelConfigOf(model),
    config: microBatch === undefined ? file : withMicroBatch(file, microBatch),
    worldSize,
    device,
    ...(sequenceLength !== undefined && { sequenceLength }),
    ...(recompute && { recompute }),
    ...(memory !== undefined && { memory }),
  };
  return { options, json };
}

function modelConfigOf(directory: string): Record<string, unknown> {
  const path = join(directory, 'config.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : (error as Error).message;
    throw new DeepSpeedError('ERR_MODEL_CONFIG', `--model: expected a Hugging Face directory, but ${path}: ${why}`);
  }
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw new DeepSpeedError('ERR_MODEL_CONFIG', `${path} is not JSON: ${(error as Error).message}`);
  }
}

/** The config with another micro-batch and, where it gives them, the same samples in a step. */
function withMicroBatch(file: string, samples: number): object {
  const { gradient_accumulation_steps: steps, ...rest } = readConfig(file).raw as Record<string, unknown>;
  const follows = typeof rest.train_batch_size === 'number' || steps === undefined;
  return { ...rest, train_micro_batch_size_per_gpu: samples, ...(!follows && { gradient_accumulation_steps: steps }) };
}
