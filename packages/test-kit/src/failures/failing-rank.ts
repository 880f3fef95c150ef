import { type Batch, type DeepSpeedEngine, initialize } from 'deepspeed-ts';
import { buildModel, CONTEXT, type ModelName, VOCABULARY } from '../zero/models.js';

export interface FailingArgs {
  /** Default: 'gpt'. */
  readonly model?: ModelName;
  /** Merged over a config that works. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** This rank gives a token that the model does not know, in its third step. */
  readonly badTokenOn?: number;
  readonly say?: (word: string) => void;
}

/** Trains until something goes wrong, then disposes the engine as a careful user does, and passes the error on. */
export async function trainUntilFailure(args: FailingArgs): Promise<never> {
  const { engine, model } = await open(args);
  try {
    for (;;) {
      const bad = engine.globalSteps === 2 && args.badTokenOn === engine.rank;
      const data = Int32Array.from({ length: CONTEXT }, (_, i) => (bad ? VOCABULARY : i));
      const batch: Batch = { inputIds: { data, shape: [1, CONTEXT] }, labels: { data, shape: [1, CONTEXT] } };
      await engine.trainBatch([batch]);
      args.say?.(`step ${engine.globalSteps}`);
    }
  } finally {
    await engine.dispose();
    model.dispose();
    console.error(`${engine.device.liveBuffers} buffers are alive after dispose()`);
  }
}

async function open({ model: name = 'gpt', config }: FailingArgs): Promise<{ engine: DeepSpeedEngine; model: { dispose(): void } }> {
  const model = buildModel(name, { rank: Number(process.env.RANK) });
  const { engine } = await initialize({
    model,
    config: {
      train_micro_batch_size_per_gpu: 1,
      gradient_clipping: 1,
      zero_optimization: { stage: 3 },
      optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
      ...config,
    },
  });
  return { engine, model };
}
