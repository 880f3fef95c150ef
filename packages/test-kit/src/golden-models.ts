import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Backend, backward, type Device, LocalStore, noGrad, scope, tensor, WorldOfOne, write } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, nextTokenLabels } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { goldenFolder, readJson, readTensors, relativeError } from './golden.js';
import { withDevice } from './with-device.js';

const TOLERANCE = 1e-4;

/** Tests small models of known weights on a backend against what the reference software computed from them. */
export function goldenModels(device: string, open: () => Backend): void {
  for (const family of ['gpt2', 'llama', 'llama3-rope', 'qwen2']) {
    goldenModel(`on ${device} a 3-layer ${family} with the weights of the reference`, goldenFolder('models', family), open);
  }
  // Of every dense family, with what it does otherwise than usual: see golden/make_families.py.
  const families = fileURLToPath(new URL('../golden/families', import.meta.url));
  for (const variant of readdirSync(families).sort()) {
    goldenModel(`on ${device} a tiny ${variant} with the weights of transformers`, join(families, variant), open);
  }
}

function goldenModel(title: string, folder: string | undefined, open: () => Backend): void {
  describe(title, () => {
    const model = () => new DecoderLM(decoderConfig(readJson(join(folder!, 'config.json'))));
    const golden = () => readTensors(join(folder!, 'golden.safetensors'));
    const weights = () => readTensors(join(folder!, 'model.safetensors'));

    /** With the model's weights on a device. */
    const onDevice = (body: (device: Device, lm: DecoderLM, store: LocalStore) => void) =>
      withDevice(open(), (device) => {
        const lm = model();
        const store = new LocalStore(lm, device);
        const values = weights();
        expect([...store.stateDict().keys()].sort()).toEqual([...values.keys()].sort());
        for (const [name, value] of store.stateDict()) write(value, values.get(name)!);
        body(device, lm, store);
        store.dispose();
        lm.dispose();
      });

    test.skipIf(!folder)('gives the reference logits, loss and gradients', () =>
      onDevice((device, lm, store) => {
        const expected = golden();
        scope(() => {
          const { data, shape } = expected.get('input_ids')!;
          const inputIds = idsOf(device, data, shape);
          const labels = idsOf(device, nextTokenLabels(data, shape[1]!), shape);
          const logits = noGrad(() => lm.logits(inputIds));
          expect(relativeError(logits.readSync().data, expected.get('logits')!.data)).toBeLessThan(TOLERANCE);
          const loss = lm.call({ inputIds, labels });
          expect(relativeError(loss.readSync().data, expected.get('loss')!.data)).toBeLessThan(TOLERANCE);
          backward(loss);
        });
        const whole = Math.hypot(...[...expected].filter(([name]) => name.startsWith('grad.')).map(([, { data }]) => normOf(data)));
        for (const name of store.stateDict().keys()) {
          const gradient = store.gradientOf(name)!.readSync().data;
          const golden = expected.get(`grad.${name}`)!.data;
          // What a bias adds to every key alike no softmax sees: both gradients are rounding about 0.
          if (normOf(golden) < 1e-6 * whole) expect(normOf(gradient), name).toBeLessThan(1e-6 * whole);
          else expect(relativeError(gradient, golden), name).toBeLessThan(TOLERANCE);
        }
      }),
    );

    test.skipIf(!folder)('gives the reference logits of rows padded on the left, the pads a document of their own', () =>
      onDevice((device, lm) => {
        const expected = golden();
        scope(() => {
          const { data, shape } = expected.get('left_padded_input_ids')!;
          const tokens = shape[1]!;
          const positions = positionsOf(expected.get('left_padded_mask')!.data, tokens);
          const logits = noGrad(() => lm.logits(idsOf(device, data, shape), idsOf(device, positions, shape)));
          const [rows, , vocabulary] = logits.shape as [number, number, number];
          const values = logits.readSync().data;
          const last = Array.from({ length: rows }, (_, row) => ((row + 1) * tokens - 1) * vocabulary);
          const actual = last.flatMap((at) => [...values.subarray(at, at + vocabulary)]);
          expect(relativeError(actual, expected.get('left_padded_last_logits')!.data)).toBeLessThan(TOLERANCE);
        });
      }),
    );

    test.skipIf(!folder)('goes through ten AdamW steps with the reference losses', async () => {
      const expected = golden();
      const initial = weights();
      const lm = model();
      const { engine } = await initialize({
        model: lm,
        backend: open(),
        communicator: new WorldOfOne(),
        initial: (name) => initial.get(name)?.data,
        config: {
          train_batch_size: 4,
          gradient_clipping: 0,
          optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 } },
        },
      });
      const losses: number[] = [];
      for (let i = 0; i < 10; i++) {
        const { data, shape } = expected.get(`train_batch_${i}`)!;
        const inputIds = { data: Int32Array.from(data), shape };
        losses.push(await engine.trainBatch([{ inputIds, labels: { data: nextTokenLabels(data, shape[1]!), shape } }]));
      }
      for (const [i, value] of expected.get('train_losses')!.data.entries())
        expect(Math.abs(losses[i]! - value) / value, `loss of step ${i}`).toBeLessThan(1e-3);
      await engine.dispose();
      lm.dispose();
      expect(engine.device.describeLive()).toEqual([]);
    });
  });
}

function normOf(values: ArrayLike<number>): number {
  return Math.sqrt(Array.from(values).reduce((sum, v) => sum + v * v, 0));
}

/** Of each token in its document, where a row begins with a document of pads. */
function positionsOf(mask: ArrayLike<number>, tokens: number): Int32Array {
  const positions = new Int32Array(mask.length);
  for (let i = 0; i < mask.length; i++) positions[i] = i % tokens > 0 && mask[i] === mask[i - 1] ? positions[i - 1]! + 1 : 0;
  return positions;
}

function idsOf(device: Device, values: ArrayLike<number>, shape: readonly number[]) {
  return tensor(device, values, 'i32', shape, { kind: 'data' });
}
