import { join } from 'node:path';
import { type Backend, backward, type Device, LocalStore, noGrad, scope, tensor, WorldOfOne, write } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, nextTokenLabels } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { goldenFolder, readJson, readTensors, relativeError } from './golden.js';
import { withDevice } from './with-device.js';

const TOLERANCE = 1e-4;

/** Tests small models of known weights on a backend against what the reference software computed from them. */
export function goldenModels(device: string, open: () => Backend): void {
  describe.each(['gpt2', 'llama', 'llama3-rope', 'qwen2'])(`on ${device} a 3-layer %s with the weights of the reference`, (family) => {
    const folder = goldenFolder('models', family);
    const model = () => new DecoderLM(decoderConfig(readJson(join(folder!, 'config.json'))));

    test.skipIf(!folder)('gives the reference logits, loss and gradients', () =>
      withDevice(open(), (device) => {
        const weights = readTensors(join(folder!, 'model.safetensors'));
        const golden = readTensors(join(folder!, 'golden.safetensors'));
        const lm = model();
        const store = new LocalStore(lm, device);
        for (const [name, value] of store.stateDict()) write(value, weights.get(name)!);
        scope(() => {
          const ids = golden.get('input_ids')!;
          const inputIds = idsOf(device, ids.data, ids.shape);
          const labels = idsOf(device, nextTokenLabels(ids.data, ids.shape[1]!), ids.shape);
          const logits = noGrad(() => lm.logits(inputIds));
          expect(relativeError(logits.readSync().data, golden.get('logits')!.data)).toBeLessThan(TOLERANCE);
          const loss = lm.call({ inputIds, labels });
          expect(relativeError(loss.readSync().data, golden.get('loss')!.data)).toBeLessThan(TOLERANCE);
          backward(loss);
        });
        for (const name of store.stateDict().keys()) {
          const parameter = store.gradientOf(name)!;
          expect(relativeError(parameter.readSync().data, golden.get(`grad.${name}`)!.data), name).toBeLessThan(TOLERANCE);
        }
        store.dispose();
        lm.dispose();
      }),
    );

    test.skipIf(!folder)('gives the reference logits of rows padded on the left, the pads a document of their own', () =>
      withDevice(open(), (device) => {
        const weights = readTensors(join(folder!, 'model.safetensors'));
        const golden = readTensors(join(folder!, 'golden.safetensors'));
        const lm = model();
        const store = new LocalStore(lm, device);
        for (const [name, value] of store.stateDict()) write(value, weights.get(name)!);
        scope(() => {
          const { data, shape } = golden.get('left_padded_input_ids')!;
          const tokens = shape[1]!;
          const mask = golden.get('left_padded_mask')!.data;
          const positions = Int32Array.from(mask);
          for (let i = 0; i < positions.length; i++) positions[i] = i % tokens > 0 && mask[i] === mask[i - 1] ? positions[i - 1]! + 1 : 0;
          const logits = noGrad(() => lm.logits(idsOf(device, data, shape), idsOf(device, positions, shape)));
          const vocabulary = logits.shape[2]!;
          const last = Array.from({ length: shape[0]! }, (_, row) => ((row + 1) * tokens - 1) * vocabulary);
          const values = logits.readSync().data;
          const actual = last.flatMap((at) => [...values.subarray(at, at + vocabulary)]);
          expect(relativeError(actual, golden.get('left_padded_last_logits')!.data)).toBeLessThan(TOLERANCE);
        });
        store.dispose();
        lm.dispose();
      }),
    );

    test.skipIf(!folder)('goes through ten AdamW steps with the reference losses', async () => {
      const weights = readTensors(join(folder!, 'model.safetensors'));
      const golden = readTensors(join(folder!, 'golden.safetensors'));
      const lm = model();
      const { engine } = await initialize({
        model: lm,
        backend: open(),
        communicator: new WorldOfOne(),
        initial: (name) => weights.get(name)?.data,
        config: {
          train_batch_size: 4,
          gradient_clipping: 0,
          optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 } },
        },
      });
      const losses: number[] = [];
      for (let i = 0; i < 10; i++) {
        const { data, shape } = golden.get(`train_batch_${i}`)!;
        const inputIds = { data: Int32Array.from(data), shape };
        losses.push(await engine.trainBatch([{ inputIds, labels: { data: nextTokenLabels(data, shape[1]!), shape } }]));
      }
      for (const [i, expected] of golden.get('train_losses')!.data.entries())
        expect(Math.abs(losses[i]! - expected) / expected).toBeLessThan(1e-3);
      await engine.dispose();
      lm.dispose();
      expect(engine.device.describeLive()).toEqual([]);
    });
  });
}

function idsOf(device: Device, values: ArrayLike<number>, shape: readonly number[]) {
  return tensor(device, values, 'i32', shape, { kind: 'data' });
}
