import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { run } from './config.js';
import { UsageError } from './main.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'deepspeed-config-check-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Exit code and output of `deepspeed-ts config`. */
async function check(config: string, ...options: string[]): Promise<{ code: number; text: string }> {
  const file = join(folder, 'ds.json');
  writeFileSync(file, config);
  let text = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += chunk;
    return true;
  });
  try {
    return { code: await run(['check', file, ...options]), text };
  } finally {
    write.mockRestore();
  }
}

test('a valid config ends with 0, a line for each key and the sizes of a step', async () => {
  const { code, text } = await check(
    '{"train_batch_size": 32, "gradient_accumulation_steps": 4, "zero_optimization": {"reduce_bucket_size": 5}}',
    '--world',
    '2',
  );
  expect(code).toBe(0);
  expect(text).toMatch(/^ok {2}train_batch_size: 32 +Samples of one optimizer step/);
  expect(text).toMatch(/^- {3}zero_optimization.reduce_bucket_size: 5 +without effect: a unit is the bucket/m);
  expect(text).toContain('a step: 32 samples = 4 in a micro-batch x 4 micro-batches x 2 ranks');
});

test('a config that a run would refuse ends with 1 and says where and why', async () => {
  const { code, text } = await check('{"train_batch_size": 32,\n "fp61": {"enabled": true}}');
  expect(code).toBe(1);
  expect(text).toMatch(/^NO {2}fp61.*refused: unknown key; did you mean "fp16"\? \(ds.json:2:2\)$/m);
  expect(text).toContain('1 problem for 1 rank');
});

test('"auto" is refused, or with --auto left to a trainer, batch sizes and required settings included', async () => {
  const config = '{"train_batch_size": "auto", "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": "auto"}}}';
  expect((await check(config)).code).toBe(1);
  const { code, text } = await check(config, '--auto', '--json');
  expect(code).toBe(0);
  expect(JSON.parse(text)).toMatchObject({ valid: true, world: 1 });
  expect(JSON.parse(text).keys).toContainEqual({
    path: 'scheduler.params.total_num_steps',
    value: 'auto',
    effect: 'honoured',
    text: 'filled in by the trainer from its own arguments',
  });
});

test('arguments that can’t be meant are told with the usage', async () => {
  await expect(run(['chekc', 'x'])).rejects.toThrow(UsageError);
  await expect(run(['check'])).rejects.toThrow(/expected 'check' and one file/);
  await expect(check('{}', '--world', 'two')).rejects.toThrow(/--world: expected a number of ranks, got 'two'/);
});
