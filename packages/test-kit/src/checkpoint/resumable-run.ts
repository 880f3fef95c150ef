import { createHash } from 'node:crypto';
import { type Communicator, uniforms } from '@deepspeed-ts/core';
import { type Batch, type DataLoader, type DeepSpeedEngine, initialize } from 'deepspeed-ts';
import { buildModel, CONTEXT, VOCABULARY } from '../zero/models.js';
import { configOf, type TrainingRun } from '../zero/training-run.js';

export type Run = Omit<TrainingRun, 'steps'>;

export interface Resumable {
  readonly engine: DeepSpeedEngine;
  readonly loader: Pick<DataLoader<never, Batch>, 'next' | 'stateDict'>;
}

/** Few and uneven enough that some steps end an epoch. */
const trainingData = {
  length: 31,
  get(index: number) {
    const tokens = Int32Array.from(uniforms({ seed: 5, step: index }, 0, CONTEXT), (u) => Math.floor(u * u * VOCABULARY));
    return { inputIds: tokens, labels: tokens };
  },
};

const scheduler = { type: 'WarmupLR', params: { warmup_min_lr: 0, warmup_max_lr: 0.01, warmup_num_steps: 8 } };

export async function open(run: Run, communicator: Communicator): Promise<Resumable> {
  const model = buildModel(run.model, run);
  const config = { ...configOf({ ...run, steps: 0 }), scheduler };
  const { engine, dataloader } = await initialize({ model, communicator, seed: 3, config, trainingData });
  return { engine, loader: dataloader! };
}

export async function trainMicro({ engine, loader }: Resumable, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    engine.backward(engine.forward(loader.next()));
    await engine.step();
  }
}

/** Sha-256 of all weights and optimizer states with their names. */
export async function hashOfState(engine: DeepSpeedEngine): Promise<string> {
  const hash = createHash('sha256');
  for (const kind of ['weights', 'exp_avg', 'exp_avg_sq']) {
    const tensors = kind === 'weights' ? engine.weights() : engine.optimizerState(kind);
    for await (const [name, { data }] of tensors) hash.update(`${kind} ${name}`).update(Float32Array.from(data));
  }
  return hash.digest('hex');
}
