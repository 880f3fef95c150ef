import { DecoderLM, gpt2, initialize } from 'deepspeed-ts';

const model = new DecoderLM(gpt2({ vocabSize: 16, layers: 2, heads: 2, dim: 32, context: 8 }));
const { engine } = await initialize({
  model,
  config: { train_batch_size: 2, optimizer: { type: 'AdamW', params: { lr: 0.01 } }, zero_optimization: { stage: 3 } },
});
const ids = [1, 2, 3, 4, 5, 6, 7, 8];
const batch = {
  inputIds: { data: Int32Array.from(ids), shape: [1, 8] },
  labels: { data: Int32Array.from(ids, (id) => id + 1), shape: [1, 8] },
};
const losses = [];
for (let step = 0; step < 20; step++) losses.push(await engine.trainBatch([batch]));
if (engine.rank === 0) console.log(`${engine.worldSize} ranks: loss fell from ${losses[0].toFixed(3)} to ${losses.at(-1).toFixed(3)}`);
await engine.dispose();
