import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Device, type MemoryKind, namedParameters, noGrad, type QuantizedFormat, scope, tensor, WorldOfOne } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { AutoModelForCausalLM, type DecoderLM, getPeftModel, PeftModel } from '@deepspeed-ts/transformers';
import { type HostArray, initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { readTensors } from '../golden.js';
import { loraFamilies, loraFolder } from './golden-lora.js';

const config = (stage: number, bf16 = false) => ({
  train_batch_size: 2,
  bf16: { enabled: bf16 },
  zero_optimization: { stage },
  optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
});

type Ids = Readonly<Record<'inputIds' | 'labels', HostArray>>;

const open = (model: DecoderLM | PeftModel, stage = 0, bf16 = false) =>
  initialize({ model, config: config(stage, bf16), backend: cpuBackend(), communicator: new WorldOfOne() });

const batchOf = (folder: string): Ids => {
  const golden = readTensors(join(folder, 'golden.safetensors'));
  const ids = (name: string) => ({ data: Int32Array.from(golden.get(name)!.data), shape: [...golden.get(name)!.shape] });
  return { inputIds: ids('input_ids'), labels: ids('labels') };
};

/** The loss of a model that is whole on a device. */
function lossOf(model: DecoderLM | PeftModel, device: Device, { inputIds, labels }: Ids): number {
  return scope(() => {
    const on = ({ data, shape }: HostArray) => tensor(device, data as Int32Array, 'i32', shape, { kind: 'data' });
    return noGrad(() => model.call({ inputIds: on(inputIds), labels: on(labels) })).readSync().data[0]!;
  });
}

describe.each(loraFamilies)('adapters of a tiny %s', (family) => {
  const folder = loraFolder(family);
  const batch = batchOf(folder);

  test.each([0, 3])('that an engine has trained at stage %i are saved alone, load on the base model, and can be merged', async (stage) => {
    const directory = await mkdtemp(join(tmpdir(), 'lora-'));
    const device = new Device(cpuBackend());
    try {
      const { engine } = await open(getPeftModel(await AutoModelForCausalLM.fromPretrained(folder), { r: 2, loraAlpha: 16 }), stage);
      const first = await engine.evalBatch(batch);
      for (let step = 0; step < 5; step++) await engine.trainBatch([batch]);
      const trained = await engine.evalBatch(batch);
      expect(trained).toBeLessThan(0.95 * first);
      await engine.saveModel(directory);
      await engine.dispose();
      expect((await readdir(directory)).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);

      const base = await AutoModelForCausalLM.fromPretrained(folder, { device });
      expect(Math.abs(lossOf(base, device, batch) - first)).toBeLessThan(1e-5);
      const adapted = await PeftModel.fromPretrained(base, directory);
      expect(Math.abs(lossOf(adapted, device, batch) - trained)).toBeLessThan(1e-5);
      const merged = await adapted.mergeAndUnload();
      expect(Math.abs(lossOf(merged, device, batch) - trained)).toBeLessThan(1e-5);
      merged.dispose();

      // Read by the engine itself, to be trained on.
      const again = await PeftModel.fromPretrained(await AutoModelForCausalLM.fromPretrained(folder), directory, { isTrainable: true });
      const { engine: second } = await open(again, stage);
      expect(Math.abs((await second.evalBatch(batch)) - trained)).toBeLessThan(1e-5);
      await second.trainBatch([batch]);
      expect(await second.evalBatch(batch)).not.toBe(trained);
      await second.dispose();
      again.dispose();
      expect(device.describeLive()).toEqual([]);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test.each(['nf4', 'int8'] as const)(
    'on weights kept as %s codes see the same weights in an engine as in a model on a device',
    async (quantization) => {
      const device = new Device(cpuBackend());
      const whole = await AutoModelForCausalLM.fromPretrained(folder, { device, quantization });
      const expected = lossOf(whole, device, batch);
      whole.dispose();
      for (const stage of [0, 3]) {
        const { engine } = await open(getPeftModel(await AutoModelForCausalLM.fromPretrained(folder, { quantization })), stage);
        expect(await engine.evalBatch(batch)).toBe(expected);
        for (let step = 0; step < 5; step++) await engine.trainBatch([batch]);
        expect(await engine.evalBatch(batch)).toBeLessThan(expected);
        await engine.dispose();
        expect(engine.device.describeLive()).toEqual([]);
      }
      expect(device.describeLive()).toEqual([]);
    },
  );
});

describe('frozen parameters', () => {
  const folder = loraFolder('llama');
  /** Elements of each kind: 64 elements of codes share a scale, and slices are cut at multiples of 32. */
  const held = async (quantization: QuantizedFormat | undefined) => {
    const model = getPeftModel(await AutoModelForCausalLM.fromPretrained(folder, quantization && { quantization }), { r: 4 });
    const parameters = [...namedParameters(model).values()];
    const numel = (of: typeof parameters) => of.reduce((sum, parameter) => sum + parameter.numel, 0);
    const sizes = {
      trained: numel(parameters.filter(({ requiresGrad }) => requiresGrad)),
      codes: numel(parameters.filter(({ storage }) => storage)),
      frozen: numel(parameters.filter(({ requiresGrad, storage }) => !requiresGrad && !storage)),
    };
    const { engine } = await open(model, 0, true);
    const batch = batchOf(folder);
    await engine.trainBatch([batch]);
    engine.backward(engine.forward(batch));
    const live = (kind: MemoryKind) => engine.device.memory(kind).live;
    const result = { sizes, parameters: live('parameters'), gradients: live('gradients'), optimizer: live('optimizer') };
    await engine.dispose();
    model.dispose();
    return result;
  };
  /** Padding, of a few units. */
  const ROOM = 16 * 8 * 64;

  test('take their weights alone: no gradients, no master weights and no optimizer state', async () => {
    const { sizes, parameters, gradients, optimizer } = await held(undefined);
    expect(parameters).toBeGreaterThanOrEqual(2 * (sizes.trained + sizes.frozen));
    expect(parameters).toBeLessThan(2 * (sizes.trained + sizes.frozen) + ROOM);
    expect(gradients).toBeLessThan(2 * sizes.trained + ROOM);
    expect(optimizer).toBeLessThan(12 * sizes.trained + ROOM);
  });

  test('kept as nf4 take half a byte and a sixteenth for scales', async () => {
    const { sizes, parameters } = await held('nf4');
    expect(sizes.codes).toBeGreaterThan(2 * sizes.frozen);
    const bytes = 2 * (sizes.trained + sizes.frozen) + (9 / 16) * sizes.codes;
    expect(parameters).toBeGreaterThanOrEqual(bytes);
    expect(parameters).toBeLessThan(bytes + ROOM);
  });

  test('can not be thawed under an engine', async () => {
    const model = getPeftModel(await AutoModelForCausalLM.fromPretrained(folder));
    const { engine } = await open(model);
    for (const parameter of namedParameters(model).values()) parameter.requiresGrad = true;
    const loss = engine.forward(batchOf(folder));
    expect(() => engine.backward(loss)).toThrow(/was frozen when the store took it.*set requiresGrad = true before/);
    await engine.dispose();
    model.dispose();
  });
});
