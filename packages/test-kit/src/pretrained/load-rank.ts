import { createHash } from 'node:crypto';
import { connect, cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { AutoModelForCausalLM } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import type { RankProgram } from '../spawn-world.js';

export interface LoadArgs {
  readonly directory: string;
  readonly stages: readonly number[];
  /** Where to save, under every stage. */
  readonly out?: string;
}

export interface LoadedStage {
  readonly stage: number;
  /** Of master weights by name. */
  readonly hash: string;
  /** After a step. */
  readonly trained: string;
  /** Most bytes of the device while it was set up, and those that stayed. */
  readonly peak: number;
  readonly live: number;
  /** Most bytes that JavaScript held in buffers beside the device while weights were read, over what it held before. */
  readonly host: number;
}

/** One rank loads a model directory under each stage. */
const program: RankProgram<LoadArgs, LoadedStage[]> = async ({ args: { directory, stages, out } }) => {
  const communicator = await connect();
  const results: LoadedStage[] = [];
  for (const stage of stages) {
    const model = await AutoModelForCausalLM.fromPretrained(directory);
    const host = watchHost(model.weights!);
    const backend = cpuBackend();
    backend.resetPeak();
    const { engine } = await initialize({
      model,
      backend,
      communicator,
      config: {
        train_batch_size: 2,
        bf16: { enabled: true },
        zero_optimization: { stage },
        optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
      },
    });
    const { peak, live } = backend.memory();
    const hash = async () => {
      const sum = createHash('sha256');
      for await (const [name, { data }] of engine.weights()) sum.update(name).update(new Uint8Array(data.buffer));
      return sum.digest('hex');
    };
    const before = await hash();
    if (out) {
      await engine.saveModel(`${out}/model-${stage}`);
      await (await engine.saveCheckpoint(`${out}/checkpoint-${stage}`, { tag: 'one' })).finished;
    }
    const tokens = { data: Int32Array.from([1, 2, 3, 4 + communicator.rank]), shape: [1, 4] };
    await engine.trainBatch([{ inputIds: tokens, labels: tokens }]);
    results.push({ stage, hash: before, trained: await hash(), peak, live, host: host() });
    await engine.dispose();
    if (engine.device.liveBuffers > 0) throw new Error(`still alive: ${engine.device.describeLive().join(', ')}`);
  }
  await communicator.close();
  return results;
};

export default program;

/** Looks at JavaScript's buffers whenever weights are read. */
function watchHost(weights: { read(...args: never[]): Promise<void> }): () => number {
  const held = () => process.memoryUsage().arrayBuffers;
  const before = held();
  let most = before;
  const read = weights.read.bind(weights);
  weights.read = async (...args: never[]) => {
    most = Math.max(most, held());
    await read(...args);
    most = Math.max(most, held());
  };
  return () => most - before;
}
