import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Initialize } from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, type LogEntry } from '@deepspeed-ts/transformers';
import { initialize, Trainer } from 'deepspeed-ts';
import { expect, test, vi } from 'vitest';
import { goldenFolder, readJson, readTensors } from '../golden.js';

interface Curve {
  readonly rows: readonly { readonly input_ids: readonly number[]; readonly labels: readonly number[] }[];
  readonly logs: readonly { loss: number; grad_norm: number; learning_rate: number; epoch: number }[];
}

const folder = goldenFolder('models', 'llama');
const curve = JSON.parse(readFileSync(new URL('./fixtures/hf-trainer.json', import.meta.url), 'utf8')) as Curve;

/** Hugging Face shifts labels inside its models. */
const samples = curve.rows.map(({ input_ids, labels }) => ({ inputIds: input_ids, labels: [...labels.slice(1), -100] }));
const inOrder = {
  *stream(_epoch: number, start: number) {
    yield* samples.slice(start);
  },
};

test.skipIf(!folder)(
  "ten steps have the losses, norms and rates of Hugging Face's Trainer, with steps of unequal tokens and a short last one",
  async () => {
    vi.spyOn(process.stdout, 'write').mockImplementation(() => true);
    const model = new DecoderLM(decoderConfig(readJson(join(folder!, 'config.json'))));
    const weights = readTensors(join(folder!, 'model.safetensors'));
    const initial = (name: string) => weights.get(name)?.data;
    const logs: LogEntry[] = [];
    const trainer = new Trainer({
      model,
      initialize: ((setup: object) => initialize({ ...(setup as Parameters<typeof initialize>[0]), initial })) as unknown as Initialize,
      trainDataset: inOrder,
      args: {
        perDeviceTrainBatchSize: 2,
        gradientAccumulationSteps: 2,
        maxSteps: 10,
        learningRate: 1e-3,
        weightDecay: 0.1,
        warmupSteps: 3,
        lrSchedulerType: 'cosine',
        loggingSteps: 1,
        saveStrategy: 'no',
        useCpu: true,
      },
      callbacks: [{ onLog: (_args, _state, _control, { logs: entry }) => void (entry?.loss !== undefined && logs.push(entry)) }],
    });
    await trainer.train();
    await trainer.dispose();
    vi.restoreAllMocks();
    expect(logs).toHaveLength(curve.logs.length);
    for (const [step, expected] of curve.logs.entries()) {
      const { loss, grad_norm, learning_rate } = logs[step]!;
      expect(Math.abs(loss! / expected.loss - 1), `loss of step ${step + 1}: ${loss}, expected ${expected.loss}`).toBeLessThan(1e-3);
      expect(Math.abs(grad_norm! / expected.grad_norm - 1), `norm of step ${step + 1}`).toBeLessThan(1e-3);
      expect(learning_rate).toBeCloseTo(expected.learning_rate, 9);
    }
  },
);
