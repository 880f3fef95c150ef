import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LocalStore } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { AutoModelForCausalLM } from '@deepspeed-ts/transformers';
import { expect, test } from 'vitest';
import { readTensors } from '../golden.js';
import { runWorld } from '../spawn-world.js';
import { withDevice } from '../with-device.js';
import { temporaryFolder, tensorsOf, tinyLlama, writeModel } from './directories.js';
import type { LoadArgs, LoadedStage } from './load-rank.js';

const folder = temporaryFolder();
const program = new URL('./load-rank.ts', import.meta.url);

function load(args: LoadArgs): Promise<LoadedStage[][]> {
  return runWorld<LoadedStage[], LoadArgs>(program, 2, { args, timeoutMs: 120_000 });
}

test('two ranks begin with the weights of the files under every stage, train to the same bits, and save a directory that is like the first', async () => {
  const tensors = tensorsOf(tinyLlama);
  const directory = await writeModel(join(folder, 'llama'), tinyLlama, tensors, 2);
  writeFileSync(join(directory, 'tokenizer.json'), '{"model": {}}');
  const ranks = await load({ directory, stages: [0, 1, 2, 3], out: folder });
  const expected = createHash('sha256');
  const values = new Map([...tensors].map(([name, { data }]) => [name, Float64Array.from(data, Math.fround)]));
  for (const [name, data] of values) expected.update(name).update(new Uint8Array(data.buffer));
  const hash = expected.digest('hex');
  for (const stages of ranks) {
    expect(stages.map((stage) => stage.hash)).toEqual([hash, hash, hash, hash]);
    expect(new Set(stages.map(({ trained }) => trained)).size).toBe(1);
  }
  for (const name of ['model-0', 'model-3', 'checkpoint-0/one', 'checkpoint-3/one']) {
    const saved = join(folder, name);
    expect(readFileSync(join(saved, 'tokenizer.json'), 'utf8'), name).toBe('{"model": {}}');
    // As another program opens it: through its files alone.
    await withDevice(cpuBackend(), async (device) => {
      const model = await AutoModelForCausalLM.fromPretrained(saved, { strict: true });
      const store = await LocalStore.load(model, device);
      for (const [key, value] of store.stateDict()) expect(value.readSync().data, `${name} ${key}`).toEqual(values.get(key));
      store.dispose();
      model.dispose();
    });
  }
  expect([...readTensors(join(folder, 'model-3', 'model.safetensors')).keys()].sort()).toEqual([...tensors.keys()].sort());
}, 180_000);

test('a rank of two holds no more than its shard and one tensor while it loads at stage 3, and nothing on the host', async () => {
  const config = { ...tinyLlama, vocab_size: 4096, hidden_size: 128, intermediate_size: 256 };
  const tensors = tensorsOf(config, 'bf16');
  const directory = await writeModel(join(folder, 'larger'), { ...config, dtype: 'bfloat16' }, tensors);
  const largest = 2 * Math.max(...[...tensors.values()].map(({ data }) => data.length));
  for (const [loaded] of await load({ directory, stages: [3] })) {
    const { peak, live, host } = loaded!;
    expect(peak - live).toBeLessThanOrEqual(largest);
    // 2 bytes of weights, 4 of master weights and 8 of Adam's moments, of half of the elements, up to padding.
    const elements = [...tensors.values()].reduce((sum, { data }) => sum + data.length, 0);
    expect(live).toBeGreaterThanOrEqual((14 * elements) / 2);
    expect(live).toBeLessThan((14 * elements) / 2 + 16_384);
    expect(host).toBeLessThan(largest / 2);
  }
}, 120_000);
