import { type QuantizedFormat, quantizeWeights, WorldOfOne } from '@deepspeed-ts/core';
import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { DecoderLM, decoderConfig, getPeftModel } from '@deepspeed-ts/transformers';
import { initialize, plan } from 'deepspeed-ts';
import { describe, expect, test } from 'vitest';
import { gpus } from './devices.js';

const TOKENS = 512;
const GiB = 2 ** 30;

/** The shape of the benchmarks' llama-1b: 1.5 B parameters with both tables. */
function adapted(quantization: QuantizedFormat | undefined) {
  const model = new DecoderLM(
    decoderConfig({
      model_type: 'llama',
      vocab_size: 128256,
      hidden_size: 2048,
      intermediate_size: 8192,
      num_hidden_layers: 16,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      max_position_embeddings: 2048,
    }),
  );
  if (quantization) quantizeWeights(model, quantization);
  return getPeftModel(model, { r: 16, loraAlpha: 32, loraDropout: 0.05 });
}

const config = { train_batch_size: 1, bf16: { enabled: true }, optimizer: { type: 'AdamW', params: { lr: 1e-4 } } };

describe.skipIf(gpus() === 0)('adapters on a model of 1.5 B parameters, at 1 x 512 tokens on a GPU', () => {
  test.each(['nf4', 'int8', undefined] as const)(
    'on weights kept as %s, train in the memory that is planned, under 6 GiB where they are codes',
    async (quantization) => {
      const backend = cudaBackend();
      await backend.synchronize();
      backend.trim();
      backend.resetPeak();
      const model = adapted(quantization);
      const { engine } = await initialize({ model, config, backend, communicator: new WorldOfOne() });
      const data = Int32Array.from({ length: TOKENS }, (_, i) => (i * 7919) % 128256);
      const batch = { inputIds: { data, shape: [1, TOKENS] }, labels: { data, shape: [1, TOKENS] } };
      const losses: number[] = [];
      for (let step = 0; step < 4; step++) losses.push(await engine.trainBatch([batch]));
      await backend.synchronize();
      const { peak, reserved, workspace } = backend.memory();
      await engine.dispose();
      model.dispose();
      expect(engine.device.describeLive()).toEqual([]);
      expect(losses.at(-1)).toBeLessThan(losses[0]!);

      const planned = await plan({ model: adapted(quantization), config, worldSize: 1, device: 'cuda', sequenceLength: TOKENS });
      console.log(
        `${quantization ?? 'bf16'}: peak ${(peak / GiB).toFixed(3)} GiB, taken ${((reserved + workspace) / GiB).toFixed(3)}, planned ${(planned.required / GiB).toFixed(3)} with the context`,
      );
      expect(Math.abs(planned.peak.bytes - peak) / peak).toBeLessThan(0.02);
      if (quantization) expect(reserved + workspace + planned.fixed.context!).toBeLessThan(6 * GiB);
    },
    240_000,
  );
});
