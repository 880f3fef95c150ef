import { parseArgs } from 'node:util';
import type { ConfigKeyReport } from '@deepspeed-ts/core';
import { type BatchTriad, checkConfigFile } from '../config/index.js';
import { UsageError } from './main.js';

export const usage = `
Usage: deepspeed-ts config check FILE [options]

Prints what each key of a DeepSpeed config (JSON or HJSON) will do here: honoured, without effect, switched off, or refused
with the reason. Ends with 1 where a run would refuse the config.

  --world N   data-parallel ranks of the run; default 1
  --auto      take "auto" for a value that a trainer will fill in
  --json      one JSON object
`;

const MARKS: Readonly<Record<ConfigKeyReport['effect'], string>> = {
  honoured: 'ok ',
  'without effect': '-  ',
  'switched off': 'off',
  refused: 'NO ',
};

export async function run(args: readonly string[]): Promise<number> {
  const { values, positionals } = parse(args);
  const [action, file, ...more] = positionals;
  if (action !== 'check' || file === undefined || more.length > 0)
    throw new UsageError(`expected 'check' and one file, got '${positionals.join(' ')}'\n${usage}`);
  const world = Number(values.world);
  if (!Number.isInteger(world) || world < 1) throw new UsageError(`--world: expected a number of ranks, got '${values.world}'`);
  const { keys, batch } = checkConfigFile(file, world, { auto: values.auto });
  const refused = keys.filter(({ effect }) => effect === 'refused');
  const result = { file, world, valid: refused.length === 0, ...(batch && { batch }), keys };
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : page(result, refused.length));
  return refused.length === 0 ? 0 : 1;
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        world: { type: 'string', default: '1' },
        auto: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n${usage}`);
  }
}

interface Result {
  readonly file: string;
  readonly world: number;
  readonly keys: readonly ConfigKeyReport[];
  readonly batch?: BatchTriad;
}

function page({ file, world, keys, batch }: Result, refused: number): string {
  const ranks = `${world} rank${world === 1 ? '' : 's'}`;
  const shown = keys.map((key) => [key, key.value === undefined ? key.path : `${key.path}: ${short(key.value)}`] as const);
  const width = Math.min(60, Math.max(0, ...shown.map(([, text]) => text.length)));
  const lines = shown.map(([{ effect, text, place }, key]) => {
    const note = effect === 'honoured' ? text : `${effect}: ${text}${effect === 'refused' && place !== undefined ? ` (${place})` : ''}`;
    return `${MARKS[effect]} ${key.padEnd(width)}  ${note}`.trimEnd();
  });
  if (batch) {
    const { train_batch_size, train_micro_batch_size_per_gpu, gradient_accumulation_steps } = batch;
    lines.push(
      '',
      `a step: ${train_batch_size} samples = ${train_micro_batch_size_per_gpu} in a micro-batch x ${gradient_accumulation_steps} micro-batches x ${ranks}`,
    );
  }
  const verdict = refused === 0 ? `${file}: valid for ${ranks}` : `${file}: ${refused} problem${refused === 1 ? '' : 's'} for ${ranks}`;
  return `${[...lines, verdict].join('\n')}\n`;
}

function short(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 37)}...` : text;
}
