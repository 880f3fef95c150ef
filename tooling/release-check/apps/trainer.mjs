import { writeFileSync } from 'node:fs';
import { AutoTokenizer, BYTE_VOCABULARY, DecoderLM, fileDataset, gpt2, loadDataset, Trainer, writeByteTokenizer } from 'deepspeed-ts';

// Enough lines that threads tokenise them: before training, and beside it.
const [data, tokenizer] = ['lines.jsonl', 'tokenizer'];
writeFileSync(data, Array.from({ length: 1100 }, (_, i) => JSON.stringify({ prompt: `${i % 5}: `, completion: `${i % 5}` })).join('\n'));
await writeByteTokenizer(tokenizer);

for (const trainDataset of [
  await loadDataset(data, { tokenizer, maxLength: 16, threads: 1, pack: true }),
  await fileDataset(data, { tokenizer, maxLength: 16 }),
]) {
  const trainer = new Trainer({
    model: new DecoderLM(gpt2({ vocabSize: BYTE_VOCABULARY, layers: 1, heads: 2, dim: 32, context: 16 })),
    processingClass: await AutoTokenizer.fromPretrained(tokenizer),
    trainDataset,
    args: { maxSteps: 20, learningRate: 1e-2, loggingSteps: 10, saveStrategy: 'no', useCpu: true },
  });
  await trainer.train();
  const [first, last] = trainer.state.logHistory.map(({ loss }) => loss);
  await trainer.dispose();
  console.log(`the Trainer's loss fell from ${first.toFixed(3)} to ${last.toFixed(3)}`);
}
