import { join } from 'node:path';
import { Device, hostTensor, LocalStore, noGrad, scope, tensor, WorldOfOne } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { AutoModelForCausalLM } from '@deepspeed-ts/transformers';
import { AutoModelForCausalLM as Composed, initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { goldenFolder, readTensors, relativeError } from '../golden.js';
import { withDevice } from '../with-device.js';

const folder = goldenFolder('models');

describe.skipIf(!folder).each(['gpt2', 'llama'])('a model directory of the reference, %s', (family) => {
  const directory = join(folder ?? '', family);

  test('gives the reference logits when loaded onto a device', () =>
    withDevice(cpuBackend(), async (device) => {
      const model = await AutoModelForCausalLM.fromPretrained(directory, { device });
      const golden = readTensors(join(directory, 'golden.safetensors'));
      scope(() => {
        const { data, shape } = golden.get('input_ids')!;
        const logits = noGrad(() => model.logits(tensor(device, data, 'i32', shape)));
        expect(relativeError(logits.readSync().data, golden.get('logits')!.data)).toBeLessThan(1e-4);
      });
      expect(model.dtype).toBe('f32');
      expect(model.report).toEqual({ missing: [], unexpected: [], mismatched: [] });
      model.dispose();
    }));

  test.each(['bf16', 'f16'] as const)('has the nearest weights when loaded in %s', (dtype) =>
    withDevice(cpuBackend(), async (device) => {
      const model = await AutoModelForCausalLM.fromPretrained(directory, { device, dtype });
      const weights = readTensors(join(directory, 'model.safetensors'));
      for (const [name, value] of model.store!.stateDict()) {
        using expected = tensor(device, weights.get(name)!.data, dtype, value.shape);
        expect(same(value.readSync().data, expected.readSync().data), name).toBe(true);
      }
      model.dispose();
    }),
  );

  test('is what an engine begins with', async () => {
    const model = await AutoModelForCausalLM.fromPretrained(directory);
    const weights = readTensors(join(directory, 'model.safetensors'));
    const config = {
      train_batch_size: 1,
      bf16: { enabled: true },
      zero_optimization: { stage: 2 },
      optimizer: { type: 'AdamW', params: {} },
    };
    for (let again = 0; again < 2; again++) {
      const { engine } = await initialize({ model, config, backend: cpuBackend(), communicator: new WorldOfOne() });
      for await (const [name, value] of engine.weights()) expect(same(value.data, weights.get(name)!.data), name).toBe(true);
      await engine.dispose();
      expect(engine.device.describeLive()).toEqual([]);
    }
    model.dispose();
  });
});

test('a model of a config begins with the values of its seed', async () => {
  const config = { model_type: 'gpt2', vocab_size: 17, n_layer: 1, n_head: 2, n_embd: 8, n_positions: 8 };
  const device = new Device(cpuBackend());
  const values = async (seed: number) => {
    const model = await AutoModelForCausalLM.fromConfig(config, { device, seed });
    const wte = model.store!.stateDict().get('transformer.wte.weight')!.readSync();
    model.dispose();
    return wte;
  };
  expect(await values(3)).toEqual(await values(3));
  expect(await values(4)).not.toEqual(await values(3));
  const model = await AutoModelForCausalLM.fromConfig(config);
  const store = await LocalStore.load(model, device);
  expect(store.stateDict().get('transformer.ln_f.weight')!.readSync()).toEqual(hostTensor([8], 'f32', Array(8).fill(1)));
  store.dispose();
  expect(device.describeLive()).toEqual([]);
});

test('the package that composes takes the device by name', async () => {
  const config = { model_type: 'gpt2', vocab_size: 17, n_layer: 1, n_head: 2, n_embd: 8, n_positions: 8 };
  const model = await Composed.fromConfig(config, { device: 'cpu', dtype: 'bf16' });
  const { device, dtype } = model.store!;
  expect([device.name, dtype]).toEqual(['cpu', 'bf16']);
  model.dispose();
  expect(device.describeLive()).toEqual([]);
});

/** Faster than `toEqual`, and bits count. */
function same(a: Float64Array, b: Float64Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));
}
