import { type Backend, type Communicator, Device, LocalStore, write } from '@deepspeed-ts/core';
import { DecoderLM, type GenerateOptions, generate, gpt2 } from '@deepspeed-ts/transformers';
import { type DeepSpeedEngine, type DeviceName, initialize, openDevice } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { CONTEXT, VOCABULARY } from './models.js';
import { batchesOf, close, configOf, hashOf, type TrainingRun } from './training-run.js';

export interface GenerationRun {
  readonly stage: 0 | 1 | 2 | 3;
  readonly bf16?: boolean;
  /** Write between micro-batches and between steps. */
  readonly writes: boolean;
}

export interface GenerationResult {
  readonly hash: string;
  /** What this rank wrote, in order. */
  readonly tokens: number[][];
  /** The same by a copy of the final weights in a store of its own, of the last thing written. */
  readonly byCopy: number[][];
  /** Bytes that writing left on the device, at most, and of these in gradients. */
  readonly left: { readonly all: number; readonly gradients: number };
  /** What a rank was told when rank 1 stopped it. */
  readonly aborted: string;
}

export interface GenerationArgs {
  readonly runs: readonly GenerationRun[];
  readonly device?: DeviceName;
}

const config = gpt2({ vocabSize: VOCABULARY, layers: 2, heads: 2, dim: 16, context: 4 * CONTEXT, dropout: 0.1, initStd: 0.3 });

/** Ranks write different numbers of tokens after different prompts. */
const asked = [
  { prompts: [[1, 2, 3]], options: { maxNewTokens: 3 } },
  { prompts: [[5], [4, 3, 2, 1, 0]], options: { maxNewTokens: 11, temperature: 1.2, seed: 9, numReturnSequences: 2 } },
] satisfies { prompts: number[][]; options: GenerateOptions }[];

/** A rank that trains, and writes in between where it should, over one communicator. */
export default async function rank({ args }: RankContext<GenerationArgs>): Promise<GenerationResult[]> {
  const { backend, connect } = await openDevice(args.device ?? 'cpu');
  const communicator = await connect();
  const results = [];
  for (const run of args.runs) results.push(await trainAndWrite(run, communicator, backend));
  await communicator.close();
  return results;
}

async function trainAndWrite({ writes, ...run }: GenerationRun, communicator: Communicator, backend: Backend): Promise<GenerationResult> {
  const training: TrainingRun = { model: 'gpt', accumulation: 2, steps: 3, ...run };
  const { engine } = await initialize({ model: new DecoderLM(config), communicator, backend, seed: 3, config: configOf(training) });
  const { device } = engine;
  const { prompts, options } = asked[communicator.rank]!;
  const tokens: number[][] = [];
  const left = { all: 0, gradients: 0 };
  const write = async () => {
    if (!writes) return;
    const before = [device.backend.memory().live, device.memory('gradients').live] as const;
    tokens.push(...(await generate(engine.model as DecoderLM, prompts, options)).map((written) => [...written.tokens]));
    left.all = Math.max(left.all, device.backend.memory().live - before[0]);
    left.gradients = Math.max(left.gradients, device.memory('gradients').live - before[1]);
  };
  for (let step = 0; step < training.steps; step++) {
    for (const batch of batchesOf(training, step, communicator.rank)) {
      engine.backward(engine.forward(batch));
      await write();
      await engine.step();
    }
  }
  await write();
  const aborted = writes ? await abort(engine) : '';
  const byCopy = writes ? await copyWrites(engine, backend, run.bf16 ?? false) : [];
  const hash = await hashOf(engine);
  await close(engine);
  return { hash, tokens, byCopy, left, aborted };
}

/** Rank 1 wants no more. At stage 3 the others can't go on without it. */
async function abort(engine: DeepSpeedEngine): Promise<string> {
  const signal = engine.rank === 1 ? { signal: AbortSignal.abort(new Error('enough')) } : {};
  const { prompts, options } = asked[engine.rank]!;
  return generate(engine.model as DecoderLM, prompts, { ...options, ...signal }).then(
    () => 'nothing',
    (error: Error) => error.message,
  );
}

async function copyWrites(engine: DeepSpeedEngine, backend: Backend, bf16: boolean): Promise<number[][]> {
  const device = new Device(backend);
  const model = new DecoderLM(config);
  const store = new LocalStore(model, device, { dtype: bf16 ? 'bf16' : 'f32' });
  const values = store.stateDict();
  for await (const [name, value] of engine.weights()) write(values.get(name)!, value);
  const { prompts, options } = asked[engine.rank]!;
  const written = await generate(model, prompts, options);
  store.dispose();
  model.dispose();
  return written.map(({ tokens }) => [...tokens]);
}
