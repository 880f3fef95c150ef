import { DecoderLM, gpt2, initialize, WorkerDataset } from 'deepspeed-ts';

// Large enough that threads write its checkpoint; its data comes from a thread too. Both are files of the package beside its main one.
const model = new DecoderLM(gpt2({ vocabSize: 16, layers: 3, heads: 2, dim: 128, context: 8 }));
const dataset =
  'const ids = [1, 2, 3, 4, 5, 6, 7, 8]; export default { length: 4, get: () => ({ inputIds: ids, labels: ids.map((id) => id + 1) }) }';
const settings = {
  config: { train_batch_size: 2, optimizer: { type: 'AdamW', params: { lr: 0.01 } }, zero_optimization: { stage: 3 } },
  trainingData: new WorkerDataset(new URL(`data:text/javascript,${encodeURIComponent(dataset)}`)),
};

const { engine } = await initialize({ model, ...settings });
const losses = [];
for (let step = 0; step < 20; step++) losses.push(await engine.trainBatch());
if (engine.rank === 0) console.log(`${engine.worldSize} ranks: loss fell from ${losses[0].toFixed(3)} to ${losses.at(-1).toFixed(3)}`);
const saved = await engine.saveCheckpoint('checkpoints');
await saved.finished;
await engine.loadCheckpoint('checkpoints');
if (engine.rank === 0) console.log(`${engine.worldSize} ranks: resumed at step ${engine.globalSteps}`);
await engine.dispose();
