import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { commands } from './commands.js';
import { main } from './main.js';

/** GPT-2, the smallest. */
const model = { model_type: 'gpt2', vocab_size: 50257, n_layer: 12, n_head: 12, n_embd: 768, n_positions: 1024 };
const config = {
  train_batch_size: 64,
  train_micro_batch_size_per_gpu: 8,
  bf16: { enabled: true },
  optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
};

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'deepspeed-plan-'));
  writeFileSync(join(folder, 'config.json'), JSON.stringify(model));
  writeFileSync(join(folder, 'ds.json'), JSON.stringify(config));
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function planned(...options: string[]): Promise<Outcome> {
  const text = { out: '', err: '' };
  const listen = (stream: NodeJS.WriteStream, name: 'out' | 'err') =>
    vi.spyOn(stream, 'write').mockImplementation((chunk) => {
      text[name] += chunk;
      return true;
    });
  const spies = [listen(process.stdout, 'out'), listen(process.stderr, 'err')];
  try {
    return { code: await main(['plan', ...options], { version: '', table: commands }), ...text };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

const run = (...options: string[]) => planned('--model', folder, '--config', join(folder, 'ds.json'), '--world', '4', ...options);

test('a table says what each rank needs, by kind, and when', async () => {
  const { code, out } = await run('--seq', '512');
  expect(code).toBe(0);
  expect(out).toMatch(/^124\.4 M parameters, stage 0, bf16, 4 ranks \(cuda\)\nmicro-batch of 8 samples of 512 tokens, 2 to a step\n/);
  // 2 bytes a weight, 4 of master weight, 8 of AdamW's two moments.
  expect(out).toMatch(/parameters +237 MiB +237 MiB\n/);
  expect(out).toMatch(/master weights +475 MiB +475 MiB\n/);
  expect(out).toMatch(/optimizer state +949 MiB +949 MiB\n/);
  expect(out).toMatch(/The peak is in the (forward|backward) of transformer\./);
});

test('what does not fit ends with 1 and names the cheapest change', async () => {
  const { code, out, err } = await run('--gpu-memory', '6GiB');
  expect(code).toBe(1);
  expect(out).toContain('needed of the device');
  expect(err).toMatch(/^\ndeepspeed-ts plan: \[plan\] each of 4 ranks needs .* its device has 6\.00 GiB.*The cheapest change that fits/);
});

test('JSON has the plan, whether it fits, and a change of the config that does', async () => {
  const fits = await run('--gpu-memory', '80GiB', '--json', '--micro-batch', '2', '--device', 'cpu');
  expect(fits.code).toBe(0);
  expect(JSON.parse(fits.out)).toMatchObject({
    fits: true,
    proposal: null,
    plan: { device: 'cpu', worldSize: 4, modelParameters: 124439808, settings: { microBatch: 2, sequenceLength: 1024 } },
  });
  const refused = await run('--gpu-memory', '6GiB', '--json');
  expect(refused.code).toBe(1);
  const {
    fits: fit,
    plan,
    proposal,
  } = JSON.parse(refused.out) as {
    fits: boolean;
    plan: { required: number };
    proposal: { config: object; plan: { required: number } };
  };
  expect(fit).toBe(false);
  expect(plan.required).toBeGreaterThan(6 * 2 ** 30);
  expect(proposal.plan.required).toBeLessThanOrEqual(6 * 2 ** 30);
  writeFileSync(join(folder, 'changed.json'), JSON.stringify({ ...config, ...proposal.config }));
  const changed = await planned('--model', folder, '--config', join(folder, 'changed.json'), '--world', '4', '--gpu-memory', '6GiB');
  expect(changed.code).toBe(0);
});

test('recomputing takes less', async () => {
  const required = async (...options: string[]) =>
    (JSON.parse((await run('--json', ...options)).out) as { plan: { required: number } }).plan.required;
  expect(await required('--recompute')).toBeLessThan(await required());
});

test.each([
  ['nothing to plan', [], '--model is missing'],
  [
    'no such directory',
    ['--model', '/nowhere', '--config', 'x', '--world', '1'],
    'expected a Hugging Face directory, but /nowhere/config.json: no such file',
  ],
  ['a world of none', ['--model', '.', '--config', 'x', '--world', '0'], "--world: expected a whole number of at least 1, got '0'"],
  ['an option that is none', ['--gpu', '80GiB'], "Unknown option '--gpu'"],
  [
    'a device that is none',
    ['--model', '.', '--config', 'x', '--world', '1', '--device', 'tpu'],
    "--device: expected cuda or cpu, got 'tpu'",
  ],
])('%s is said in one line', async (_, options, message) => {
  const { code, err } = await planned(...options);
  expect(code).not.toBe(0);
  expect(err).toContain(message);
  expect(err.trim().split('\n')).toHaveLength(1);
});
