import { openBackend, uniforms, WorldOfOne } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { report, time } from './measure.js';
import type { Peaks } from './peaks.js';
import { gptShape } from './shapes.js';

/** One training step of a small GPT in f32 with AdamW, through the engine. */
export async function benchGptStep(peaks: Peaks, peerMs?: number): Promise<void> {
  const { batch, context, vocabSize, layers, dim } = gptShape;
  const model = new DecoderLM(gpt2(gptShape));
  const config = { train_batch_size: batch, gradient_clipping: 0, optimizer: { type: 'AdamW', params: { lr: 1e-3 } } };
  const { engine } = await initialize({ model, config, backend: openBackend('cpu'), communicator: new WorldOfOne() });
  const data = Int32Array.from(uniforms({ seed: 1 }, 0, batch * context), (u) => Math.floor(u * vocabSize));
  const shape = [batch, context];
  const { median, min } = await time(async () => {
    const loss = engine.forward({ inputIds: { data, shape }, labels: { data, shape } });
    engine.backward(loss);
    await engine.step();
  });
  const tokens = batch * context;
  // 6 FLOPs a token for each weight of a matrix product, and causal attention; see docs/performance.md.
  const flops = tokens * (6 * (layers * 12 * dim * dim + vocabSize * dim) + 6 * layers * dim * context);
  report({
    bench: 'gpt step',
    threads: peaks.threads,
    ms: median,
    minMs: min,
    tokensPerSecond: (tokens * 1000) / median,
    ofPeak: flops / median / 1e6 / peaks.fmaGflops,
    ...(peerMs && { peerMs, ratio: peerMs / median }),
  });
  await engine.dispose();
  model.dispose();
}
