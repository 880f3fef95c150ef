import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Backend, backward, type HostTensor, LocalStore, noGrad, scope, tensor, WorldOfOne, write } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, generate, nextTokenLabels } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { readJson, readTensors, relativeError } from './golden.js';
import { withDevice } from './with-device.js';

const folder = fileURLToPath(new URL('../golden/mixtral', import.meta.url));
const TOLERANCE = 1e-4;

/** Tests a tiny Mixtral on a backend against what transformers computed of it (golden/make_mixtral.py). */
export function goldenMixtral(device: string, open: () => Backend): void {
  const config = readJson<Record<string, unknown>>(join(folder, 'config.json'));
  const weights = readTensors(join(folder, 'model.safetensors'));
  const golden = readTensors(join(folder, 'golden.safetensors'));
  const values = (name: string) => golden.get(name)!.data;

  describe(`on ${device} a Mixtral of 4 experts with the weights of transformers`, () => {
    test.each([
      ['with the auxiliary loss of its routers', true, ''],
      ['without it', false, 'plain.'],
    ] as const)('gives its logits, loss and gradients %s', (_, withRouters, prefix) =>
      withDevice(open(), (device) => {
        const model = new DecoderLM(decoderConfig({ ...config, output_router_logits: withRouters }));
        const store = new LocalStore(model, device);
        expect([...store.stateDict().keys()].sort()).toEqual([...weights.keys()].sort());
        for (const [name, value] of store.stateDict()) write(value, weights.get(name)!);
        scope(() => {
          const { data, shape } = golden.get('input_ids')!;
          const inputIds = tensor(device, data, 'i32', shape, { kind: 'data' });
          const labels = tensor(device, nextTokenLabels(data, shape[1]!), 'i32', shape, { kind: 'data' });
          expect(relativeError(noGrad(() => model.logits(inputIds)).readSync().data, values('logits'))).toBeLessThan(TOLERANCE);
          const loss = model.call({ inputIds, labels });
          expect(relativeError(loss.readSync().data, values(`${prefix}loss`))).toBeLessThan(TOLERANCE);
          backward(loss);
        });
        for (const name of store.stateDict().keys())
          expect(relativeError(store.gradientOf(name)!.readSync().data, values(`${prefix}grad.${name}`)), name).toBeLessThan(TOLERANCE);
        store.dispose();
        model.dispose();
      }),
    );

    test('says after a prompt what it says there', () =>
      withDevice(open(), async (device) => {
        const model = new DecoderLM(decoderConfig(config));
        const store = new LocalStore(model, device);
        for (const [name, value] of store.stateDict()) write(value, weights.get(name)!);
        const options = { maxNewTokens: 16, doSample: false, eosTokenId: [] };
        const prompt = [...values('prompt')];
        // A shorter prompt beside it is padded, and changes nothing.
        const [first] = await generate(model, [prompt, prompt.slice(0, 2)], options);
        expect([...first!.tokens]).toEqual([...values('greedy')]);
        store.dispose();
        model.dispose();
      }));

    test('goes through ten AdamW steps with its losses', async () => {
      const model = new DecoderLM(decoderConfig(config));
      const { engine } = await initialize({
        model,
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
      for (let i = 0; i < 10; i++) losses.push(await engine.trainBatch([batchOf(golden.get(`train_batch_${i}`)!)]));
      for (const [i, expected] of values('train_losses').entries()) expect(Math.abs(losses[i]! - expected) / expected).toBeLessThan(1e-3);
      await engine.dispose();
      model.dispose();
      expect(engine.device.describeLive()).toEqual([]);
    });
  });
}

function batchOf({ data, shape }: HostTensor) {
  return { inputIds: { data: Int32Array.from(data), shape }, labels: { data: nextTokenLabels(data, shape[1]!), shape } };
}
