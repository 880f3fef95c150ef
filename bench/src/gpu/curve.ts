import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { DecoderLM } from '@deepspeed-ts/transformers';
import { type Batch, type DeviceName, initialize } from 'deepspeed-ts';
import { configOf, shapes } from './shapes.js';
import { learnableBatch } from './tokens.js';

/**
 * A loss curve to lay beside PyTorch's: writes the initial weights as a Hugging Face directory, the tokens of every step and the
 * losses of training on them to `--out`, where bench/peers/torch_curve.py finds them and goes the same way.
 */
export async function benchCurve(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      shape: { type: 'string', default: 'gpt2-124m' },
      batch: { type: 'string', default: '8' },
      steps: { type: 'string', default: '200' },
      precision: { type: 'string', default: 'bf16' },
      device: { type: 'string', default: 'cuda' },
      out: { type: 'string' },
    },
  });
  const shape = shapes[values.shape];
  if (!shape || !values.out) throw new Error(`bench curve: give --out FOLDER and --shape, one of ${Object.keys(shapes).join(', ')}`);
  const [batch, steps] = [Number(values.batch), Number(values.steps)];
  const { engine } = await initialize({
    model: new DecoderLM(configOf(shape)),
    device: values.device as DeviceName,
    seed: 1,
    config: {
      train_micro_batch_size_per_gpu: batch,
      gradient_clipping: 1,
      bf16: { enabled: values.precision === 'bf16' },
      optimizer: { type: 'AdamW', params: { lr: 3e-4, weight_decay: 0.1 } },
    },
  });
  await engine.saveModel(values.out);
  const tokens = new Int32Array(steps * 2 * batch * shape.seq);
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const data: Batch = learnableBatch(shape.vocab, batch, shape.seq, step);
    for (const [i, name] of ['inputIds', 'labels'].entries())
      tokens.set((data[name] as { data: Int32Array }).data, (2 * step + i) * batch * shape.seq);
    losses.push(await engine.trainBatch([data]));
  }
  await engine.dispose();
  await writeFile(join(values.out, 'tokens.i32'), tokens);
  const run = { shape: values.shape, precision: values.precision, batch, seq: shape.seq, steps, losses };
  await writeFile(join(values.out, 'losses.json'), JSON.stringify(run));
  console.log(JSON.stringify({ bench: 'curve', ...run, losses: losses.filter((_, step) => step % 20 === 0 || step === steps - 1) }));
}
