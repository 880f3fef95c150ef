import { createHash } from 'node:crypto';
import { type Communicator, namedParameters, uniforms } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { type Batch, type DeepSpeedEngine, initialize } from 'deepspeed-ts';
import { buildModel, CONTEXT, VOCABULARY } from '../zero/models.js';
import { configOf, type TrainingRun } from '../zero/training-run.js';

export interface Run extends Omit<TrainingRun, 'steps'> {
  /** A model of 7 MB of state instead: enough for files to be written by threads. */
  readonly large?: boolean;
  /** The section of the config. */
  readonly checkpoint?: object;
  /** Micro-batches that are loaded ahead. */
  readonly loadAhead?: number;
}

export interface Resumable {
  readonly engine: DeepSpeedEngine;
  readonly loader: { next(): Batch | Promise<Batch>; stateDict(): unknown };
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
  const model = run.large ? largeModel() : buildModel(run.model, run);
  const config = { ...configOf({ ...run, steps: 0 }), scheduler, ...(run.checkpoint && { checkpoint: run.checkpoint }) };
  const ahead = run.loadAhead === undefined ? {} : { prefetch: run.loadAhead };
  const { engine, dataloader } = await initialize({ model, communicator, seed: 3, config, trainingData, ...ahead });
  return { engine, loader: dataloader! };
}

function largeModel(): DecoderLM {
  return new DecoderLM(gpt2({ vocabSize: VOCABULARY, layers: 2, heads: 4, dim: 160, context: CONTEXT }));
}

export async function trainMicro({ engine, loader }: Resumable, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    engine.backward(engine.forward(await loader.next()));
    await engine.step();
  }
}

/** Sha-256 of trained weights and optimizer states with their names. */
export async function hashOfState(engine: DeepSpeedEngine): Promise<string> {
  const hash = createHash('sha256');
  const parameters = namedParameters(engine.model);
  for (const kind of ['weights', 'exp_avg', 'exp_avg_sq']) {
    const tensors = kind === 'weights' ? engine.weights() : engine.optimizerState(kind);
    for await (const [name, { data }] of tensors) {
      if (parameters.get(name)!.requiresGrad) hash.update(`${kind} ${name}`).update(Float32Array.from(data));
    }
  }
  return hash.digest('hex');
}

/** Sha-256 of frozen weights: they are kept in the compute dtype. */
export async function hashOfFrozen(engine: DeepSpeedEngine): Promise<string> {
  const hash = createHash('sha256');
  const parameters = namedParameters(engine.model);
  for await (const [name, { data }] of engine.weights()) {
    if (!parameters.get(name)!.requiresGrad) hash.update(name).update(Float32Array.from(data));
  }
  return hash.digest('hex');
}
