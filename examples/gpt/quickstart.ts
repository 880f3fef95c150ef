import { readFileSync } from 'node:fs';
import { DecoderLM, gpt2, initialize } from 'deepspeed-ts';

const text = Int32Array.from(readFileSync(process.argv[2] ?? 'book.txt')); // every byte is a token
const T = 64; // tokens that the model sees at once
const model = new DecoderLM(gpt2({ vocabSize: 256, layers: 4, heads: 4, dim: 128, context: T }));
const { engine } = await initialize({
  model,
  config: {
    train_micro_batch_size_per_gpu: 8,
    optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    zero_optimization: { stage: 3 }, // shard weights, gradients and optimizer state
  },
  trainingData: { length: text.length - T, get: (i) => ({ inputIds: text.subarray(i, i + T), labels: text.subarray(i + 1, i + 1 + T) }) },
});
for (let step = 1; step <= 100; step++) {
  const loss = await engine.trainBatch();
  if (step % 10 === 0 && engine.rank === 0) console.log(`step ${step}: ${loss.toFixed(3)} nats a byte`);
}
await engine.saveModel('my-gpt'); // model.safetensors and config.json, as Hugging Face has them
await engine.dispose();
