import { parseArgs } from 'node:util';
import { uniforms } from '@deepspeed-ts/core';
import { DecoderLM, padCollator, type TokenSample } from '@deepspeed-ts/transformers';
import { type DeviceName, initialize, Trainer } from 'deepspeed-ts';
import { configOf, type Shape, shapes } from './shapes.js';

const WARM_UP = 4;

interface Options {
  readonly shape: Shape;
  readonly batch: number;
  readonly accumulation: number;
  readonly steps: number;
  readonly stage: number;
  readonly bf16: boolean;
  readonly device: DeviceName;
}

/**
 * What the Trainer costs: the same steps by the bare engine, on batches that are there already, and by a Trainer that draws, collates, logs and calls
 * back. One JSON line for each, tokens per second on a rank, by the median step. For several ranks start it with the deepspeed command.
 */
export async function benchTrainer(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      shape: { type: 'string', default: 'llama-1b' },
      batch: { type: 'string', default: '8' },
      accumulation: { type: 'string', default: '1' },
      steps: { type: 'string', default: '16' },
      stage: { type: 'string', default: '0' },
      precision: { type: 'string', default: 'bf16' },
      device: { type: 'string', default: 'cuda' },
    },
  });
  const shape = shapes[values.shape];
  if (!shape) throw new Error(`--shape ${values.shape}: expected one of ${Object.keys(shapes).join(', ')}`);
  const number = (name: 'batch' | 'accumulation' | 'steps' | 'stage') => Number(values[name]);
  const options: Options = {
    shape,
    batch: number('batch'),
    accumulation: number('accumulation'),
    steps: number('steps'),
    stage: number('stage'),
    bf16: values.precision === 'bf16',
    device: values.device as DeviceName,
  };
  const bare = await bareEngine(options);
  const trainer = await throughTrainer(options);
  if ((process.env.RANK ?? '0') !== '0') return;
  const tokens = options.batch * options.accumulation * shape.seq * 1000;
  const line = (mode: string, ms: number) => ({ shape: values.shape, mode, ms: Number(ms.toFixed(2)), tok_s_gpu: Math.round(tokens / ms) });
  console.log(JSON.stringify(line('engine', bare)));
  console.log(JSON.stringify({ ...line('trainer', trainer), of_engine: Number((bare / trainer).toFixed(4)) }));
}

const configFor = ({ stage, bf16, batch, accumulation }: Options) => ({
  train_micro_batch_size_per_gpu: batch,
  gradient_accumulation_steps: accumulation,
  gradient_clipping: 1,
  bf16: { enabled: bf16 },
  zero_optimization: { stage },
  optimizer: { type: 'AdamW', params: { lr: 3e-4, weight_decay: 0.1 } },
});

/** Milliseconds of a step. */
async function bareEngine(options: Options): Promise<number> {
  const { shape, batch, accumulation, steps, device } = options;
  const model = new DecoderLM(configOf(shape));
  const { engine } = await initialize({ model, device, seed: 1, config: configFor(options) });
  const collate = padCollator();
  const batches = Array.from({ length: 4 }, (_, i) => collate(Array.from({ length: batch }, (_, row) => rowOf(shape, i * batch + row))));
  const times: number[] = [];
  for (let step = 0; step < WARM_UP + steps; step++) {
    const begun = performance.now();
    for (let micro = 0; micro < accumulation; micro++) {
      engine.backward(engine.forward(batches[(step + micro) % batches.length]!));
      await engine.step();
    }
    times.push(performance.now() - begun);
  }
  await engine.dispose();
  model.dispose();
  return median(times.slice(WARM_UP));
}

async function throughTrainer(options: Options): Promise<number> {
  const { shape, steps, device } = options;
  const model = new DecoderLM(configOf(shape));
  const samples = Array.from({ length: 256 }, (_, i) => rowOf(shape, i));
  const ends: number[] = [];
  const trainer = new Trainer({
    model,
    trainDataset: { length: 2 ** 20, get: (i) => samples[i % samples.length]! },
    args: {
      deepspeed: configFor(options),
      maxSteps: WARM_UP + steps + 1,
      loggingSteps: 10,
      saveStrategy: 'no',
      lrSchedulerType: 'constant',
      useCpu: device === 'cpu',
    },
    callbacks: [{ onStepEnd: () => void ends.push(performance.now()) }],
  });
  await trainer.train();
  await trainer.dispose();
  model.dispose();
  return median(
    ends
      .slice(1)
      .map((end, i) => end - ends[i]!)
      .slice(WARM_UP),
  );
}

/** Random tokens, labels the tokens one further. */
function rowOf({ vocab, seq }: Shape, index: number): TokenSample {
  const tokens = Int32Array.from(uniforms({ seed: index }, 0, seq + 1), (u) => Math.floor(u * vocab));
  return { inputIds: tokens.subarray(0, seq), labels: tokens.subarray(1) };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
