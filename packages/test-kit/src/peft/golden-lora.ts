import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Backend, backward, type Device, namedParameters, noGrad, scope, tensor } from '@deepspeed-ts/core';
import { AutoModelForCausalLM, type DecoderLM, PeftModel } from '@deepspeed-ts/transformers';
import { describe, expect, test } from 'vitest';
import { readTensors, relativeError } from '../golden.js';
import { withDevice } from '../with-device.js';

const TOLERANCE = 1e-4;

/** Made by golden/make_lora.py. */
export const loraFamilies = ['llama', 'gpt2'] as const;
export const loraFolder = (family: string) => fileURLToPath(new URL(`../../golden/lora-${family}`, import.meta.url));

/** Tests adapters that PEFT has written, on a backend, against what PyTorch computed with them. */
export function goldenLora(device: string, open: () => Backend): void {
  describe.each(loraFamilies)(`on ${device} adapters of PEFT on a tiny %s`, (family) => {
    const folder = loraFolder(family);
    const golden = readTensors(join(folder, 'golden.safetensors'));
    const expectedLogits = golden.get('logits')!.data;

    test('give its logits, loss and gradients, and the base none', () =>
      withDevice(open(), async (device) => {
        const { model, base } = await loadAdapted(folder, device, true);
        scope(() => {
          const inputIds = idsOf(device, 'input_ids');
          expect(relativeError(logitsOf(model, device), expectedLogits)).toBeLessThan(TOLERANCE);
          const loss = model.call({ inputIds, labels: idsOf(device, 'labels') });
          expect(relativeError(loss.readSync().data, golden.get('loss')!.data)).toBeLessThan(TOLERANCE);
          backward(loss);
        });
        for (const name of namedParameters(model).keys()) {
          const gradient = base.store!.gradientOf(name);
          const expected = golden.get(`grad.${name}`);
          expect(gradient !== undefined, `${name} has a gradient`).toBe(expected !== undefined);
          if (expected) expect(relativeError(gradient!.readSync().data, expected.data), name).toBeLessThan(TOLERANCE);
        }
        model.dispose();
      }));

    test('give its logits too when they are merged, and unmerging restores every bit', () =>
      withDevice(open(), async (device) => {
        const { model, base } = await loadAdapted(folder, device);
        const weights = () => [...base.store!.stateDict()].map(([name, value]) => [name, value.readSync().data] as const);
        const before = weights();
        await model.merge();
        expect(relativeError(logitsOf(model, device), golden.get('merged_logits')!.data)).toBeLessThan(TOLERANCE);
        expect(weights()).not.toEqual(before);
        model.unmerge();
        expect(weights()).toEqual(before);
        expect(relativeError(logitsOf(model, device), expectedLogits)).toBeLessThan(TOLERANCE);
        expect(await model.mergeAndUnload()).toBe(base);
        expect(relativeError(logitsOf(base, device), golden.get('merged_logits')!.data)).toBeLessThan(TOLERANCE);
        expect([...namedParameters(base).keys()].filter((name) => name.includes('lora'))).toEqual([]);
        model.dispose();
      }));

    test('come back from a directory written here with their bits, and with the names, shapes and fields that PEFT reads', () =>
      withDevice(open(), async (device) => {
        const directory = await mkdtemp(join(tmpdir(), 'lora-'));
        try {
          const { model } = await loadAdapted(folder, device);
          await model.savePretrained(directory);
          model.dispose();
          expect(readTensors(join(directory, 'adapter_model.safetensors'))).toEqual(
            readTensors(join(folder, 'adapter/adapter_model.safetensors')),
          );
          const written = await readConfig(directory);
          const theirs = await readConfig(join(folder, 'adapter'));
          // A set there, and so in any order; and the base model's directory, which these have lost.
          const { target_modules: targets, base_model_name_or_path: _, ...rest } = written;
          expect(new Set(targets as string[])).toEqual(new Set(theirs.target_modules as string[]));
          expect(theirs).toMatchObject(rest);
          const again = await PeftModel.fromPretrained(await AutoModelForCausalLM.fromPretrained(folder, { device }), directory);
          expect(relativeError(logitsOf(again, device), expectedLogits)).toBeLessThan(TOLERANCE);
          again.dispose();
        } finally {
          await rm(directory, { recursive: true });
        }
      }));

    function idsOf(device: Device, name: string) {
      const { data, shape } = golden.get(name)!;
      return tensor(device, data, 'i32', shape, { kind: 'data' });
    }

    function logitsOf(model: Pick<DecoderLM, 'logits'>, device: Device): Float64Array {
      return scope(() => noGrad(() => model.logits(idsOf(device, 'input_ids'))).readSync().data);
    }
  });
}

async function loadAdapted(folder: string, device: Device, isTrainable = false) {
  const base = await AutoModelForCausalLM.fromPretrained(folder, { device });
  return { base, model: await PeftModel.fromPretrained(base, join(folder, 'adapter'), { isTrainable }) };
}

async function readConfig(directory: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(join(directory, 'adapter_config.json'), 'utf8'));
}
