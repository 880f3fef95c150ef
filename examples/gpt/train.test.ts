import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type LaunchResult, launch } from '@deepspeed-ts/launcher';
import { SafetensorsFile } from 'deepspeed-ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('train.ts', import.meta.url));
const SMALL = ['--layers', '2', '--heads', '2', '--dim', '32', '--context', '16', '--batch', '4'];
let folder: string;
let data: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gpt-train-'));
  data = join(folder, 'text.txt');
  writeFileSync(data, 'She sells sea shells by the sea shore.\n'.repeat(200));
  writeFileSync(
    join(folder, 'stage3.json'),
    JSON.stringify({
      train_micro_batch_size_per_gpu: 'auto',
      gradient_accumulation_steps: 2,
      steps_per_print: 1,
      zero_optimization: { stage: 3 },
    }),
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

async function train(ranks: number, ...args: string[]): Promise<LaunchResult & { stdout: string[][]; stderr: string[][] }> {
  const lines = {
    stdout: Array.from({ length: ranks }, () => [] as string[]),
    stderr: Array.from({ length: ranks }, () => [] as string[]),
  };
  // One thread a rank: the machine that runs tests is busy with others.
  const env = { ...process.env, DEEPSPEED_TS_THREADS: '1' };
  const result = await launch({
    script,
    ranks,
    args,
    env,
    cwd: folder,
    onLine: ({ rank, stream, text }) => lines[stream][rank]!.push(text),
  });
  return { ...result, ...lines };
}

describe('training on two ranks', () => {
  it('prints one JSON line a step, from rank 0 only, with a falling loss, and writes the model', async () => {
    const args = [...SMALL, '--data', data, '--deepspeed', 'stage3.json', '--steps', '20', '--lr', '1e-2', '--eval-interval', '10'];
    const { exitCode, stdout, stderr } = await train(2, ...args, '--json', '--out', 'model', '--sample', '20');
    expect(stderr[1]).toEqual([]);
    expect(exitCode).toBe(0);
    expect(stdout[1]).toEqual([]);
    const reports = stdout[0]!.map((line) => JSON.parse(line));
    expect(reports.map(({ step }) => step)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    for (const report of reports) {
      expect(Object.keys(report)).toEqual(expect.arrayContaining(['loss', 'grad_norm', 'lr', 'tokens_per_s', 'eta_s']));
      expect(Object.hasOwn(report, 'val_loss')).toBe([10, 20].includes(report.step));
    }
    const vocabulary = JSON.parse(readFileSync(join(folder, 'model/vocabulary.json'), 'utf8'));
    expect(vocabulary.symbols.join('')).toBe('\n .Sabehlorsty');
    // An untrained model finds all tokens about equally likely.
    expect(Math.abs(reports[0].loss - Math.log(vocabulary.symbols.length))).toBeLessThan(0.3);
    expect(reports[19].loss).toBeLessThan(reports[0].loss - 0.7);
    expect(reports[19].val_loss).toBeLessThan(reports[9].val_loss);
    expect(reports[19].memory_mib).toHaveLength(2);

    const config = JSON.parse(readFileSync(join(folder, 'model/config.json'), 'utf8'));
    expect(config).toMatchObject({ model_type: 'gpt2', n_layer: 2, n_embd: 32, n_positions: 16, vocab_size: vocabulary.symbols.length });
    const weights = new SafetensorsFile(join(folder, 'model/model.safetensors'));
    expect(weights.names).toContain('transformer.h.1.mlp.c_proj.weight');
    weights.close();
    // What is for people goes elsewhere.
    expect(stderr[0]!.join('\n')).toContain('2 ranks at ZeRO stage 3');
  });

  it('ends with the same loss on one rank as on two, given the same windows', async () => {
    // This many validation windows can be shared out evenly.
    const args = [
      ...SMALL.slice(0, -2),
      '--data',
      data,
      '--val-fraction',
      '0.11',
      '--steps',
      '6',
      '--warmup',
      '1',
      '--json',
      '--sample',
      '0',
    ];
    const [one, two] = await Promise.all([train(1, ...args, '--batch', '4'), train(2, ...args, '--batch', '2')]);
    const last = ({ stdout }: typeof one) => JSON.parse(stdout[0]!.at(-1)!);
    expect(last(one).step).toBe(6);
    expect(last(two).loss).toBeCloseTo(last(one).loss, 4);
    expect(last(two).val_loss).toBeCloseTo(last(one).val_loss, 4);
  });

  it('stops with a word from every rank when the data is missing, empty or too short', async () => {
    writeFileSync(join(folder, 'empty.txt'), '');
    writeFileSync(join(folder, 'short.txt'), 'too short');
    const cases = [
      ['none.txt', 'none.txt: no such file'],
      ['empty.txt', 'empty.txt: the file is empty'],
      ['short.txt', 'short.txt: 8 of its 9 tokens are for training, fewer than one window: expected at least 17'],
    ] as const;
    const results = await Promise.all(cases.map(([path]) => train(2, ...SMALL, '--data', path, '--json')));
    for (const [i, { exitCode, stderr }] of results.entries()) {
      expect(exitCode).toBe(1);
      for (const rank of [0, 1]) expect(stderr[rank]!.join('\n')).toContain(`train.ts, rank ${rank}: --data ${cases[i]![1]}`);
    }
  });

  it('stops with a word from every rank when the loss is not finite, and writes no model', async () => {
    const args = [
      ...SMALL,
      '--data',
      data,
      '--steps',
      '50',
      '--warmup',
      '0',
      '--lr',
      '1e30',
      '--min-lr',
      '1e30',
      '--sample',
      '0',
      '--out',
      'nan',
    ];
    const { exitCode, stderr } = await train(2, ...args);
    expect(exitCode).toBe(1);
    for (const rank of [0, 1])
      expect(stderr[rank]!.join('\n')).toMatch(new RegExp(`rank ${rank}: the (loss|gradient norm) of step \\d+ is NaN`));
    expect(existsSync(join(folder, 'nan'))).toBe(false);
  });
});
