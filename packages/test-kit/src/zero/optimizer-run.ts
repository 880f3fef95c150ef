import { createHash } from 'node:crypto';
import {
  type Backend,
  backward,
  type CausalBatch,
  type Communicator,
  Device,
  type FloatDType,
  fromHost,
  full,
  hostTensor,
  type Parameter,
  scope,
} from '@deepspeed-ts/core';
import {
  adagrad,
  adam,
  adamw8bit,
  lamb,
  lion,
  muon,
  type Optimizer,
  type OptimizerOptions,
  plainSgd,
  type Stage,
  sgd,
  ZeroStore,
} from 'deepspeed-ts';
import { OddModel } from './models.js';
import { microBatch } from './training-run.js';

/** A training without an engine, as data: an engine takes longer to make than such a model to train. */
export interface OptimizerRun {
  readonly optimizer: keyof typeof optimizers;
  readonly precision: keyof typeof precisions;
  readonly stage: Stage;
}

export interface OptimizerResult {
  /** Sha-256 of weights and of all optimizer states, with their names. */
  readonly hash: string;
  readonly losses: readonly number[];
  readonly gradNorms: readonly string[];
  /** Steps that were applied. */
  readonly applied: number;
}

const STEPS = 4;

/** What is done otherwise for some parameters. */
interface Setting {
  readonly algorithm: Optimizer<never>;
  readonly options: OptimizerOptions & Readonly<Record<string, unknown>>;
}

const betas = [0.9, 0.99] as const;
const isBlock = (name: string) => name.startsWith('blocks.');
const adamOptions = { lr: 1e-2, betas, eps: 1e-6, weightDecay: 0.1, decoupled: true, biasCorrection: true };

/** With large steps: one that does something else at another stage shows at once. */
export const optimizers = {
  AdamW: { algorithm: adam, options: adamOptions },
  SGD: { algorithm: plainSgd, options: { lr: 0.1, weightDecay: 0.01 } },
  'SGD with momentum': { algorithm: sgd, options: { lr: 0.1, momentum: 0.9, dampening: 0, nesterov: true, weightDecay: 0.01 } },
  Adagrad: { algorithm: adagrad, options: { lr: 0.05, eps: 1e-10, lrDecay: 0.1, initialAccumulatorValue: 0, weightDecay: 0.01 } },
  Lion: { algorithm: lion, options: { lr: 0.003, betas, weightDecay: 0.1 } },
  Lamb: {
    algorithm: lamb,
    options: { lr: 0.05, betas, eps: 1e-6, weightDecay: 0.1, biasCorrection: true, epsInsideRoot: false, minCoeff: 0.01, maxCoeff: 4 },
  },
  Muon: {
    algorithm: muon(isBlock),
    options: { lr: 0.02, betas, eps: 1e-8, weightDecay: 0.1, momentum: 0.9, nesterov: true, nsSteps: 5 },
  },
  AdamW8bit: { algorithm: adamw8bit((_: string, { numel }: Parameter) => numel >= 100), options: adamOptions },
} as const satisfies Readonly<Record<string, Setting>>;

interface Precision {
  readonly dtype: FloatDType;
  readonly gradientDtype?: FloatDType;
  readonly masterDtype?: 'bf16';
  readonly stateDtype?: 'bf16';
  /** Steps in which the gradients of the last rank are infinite. */
  readonly overflowAt: readonly number[];
}

export const precisions = {
  f32: { dtype: 'f32', overflowAt: [] },
  bf16: { dtype: 'bf16', overflowAt: [0] },
  fp16: { dtype: 'f16', overflowAt: [1, 2] },
  'bf16 with f32 gradients and bf16 states': { dtype: 'bf16', gradientDtype: 'f32', stateDtype: 'bf16', overflowAt: [2] },
  'bf16 alone': { dtype: 'bf16', masterDtype: 'bf16', stateDtype: 'bf16', overflowAt: [] },
  'bf16 weights with f32 states': { dtype: 'bf16', masterDtype: 'bf16', overflowAt: [3] },
} as const satisfies Readonly<Record<string, Precision>>;

/** One after the other. */
export async function trainAll(runs: readonly OptimizerRun[], communicator: Communicator, backend: Backend): Promise<OptimizerResult[]> {
  const results: OptimizerResult[] = [];
  for (const run of runs) results.push(await trainWith(run, communicator, backend));
  return results;
}

/** Trains a model of uneven sizes with tied, frozen and unused parameters, and checks that everything is given back. */
async function trainWith(run: OptimizerRun, communicator: Communicator, backend: Backend): Promise<OptimizerResult> {
  const device = new Device(backend);
  const model = new OddModel();
  const { algorithm, options }: Setting = optimizers[run.optimizer];
  const { overflowAt, ...dtypes }: Precision = precisions[run.precision];
  // Two groups, so that ranges are cut.
  const groups = [options, { ...options, weightDecay: 0 }] as const;
  const store = new ZeroStore<OptimizerOptions>(model, {
    ...{ device, communicator, stage: run.stage, optimizer: algorithm as Optimizer<OptimizerOptions>, seed: 3 },
    ...dtypes,
  });
  const losses: number[] = [];
  const gradNorms: string[] = [];
  const lossScale = dtypes.dtype === 'f16' ? 256 : 1;
  for (let step = 0; step < STEPS; step++) {
    const bad = overflowAt.includes(step) && communicator.rank === communicator.size - 1;
    losses.push(await pass(model, device, microBatch(step % 2, 0, communicator.rank), bad ? Number.POSITIVE_INFINITY : lossScale));
    store.finishBackward();
    store.step({ optionsOf: ({ shape }) => groups[shape.length < 2 ? 1 : 0], maxNorm: 0.5, gradScale: 1 / lossScale });
    // As text, for which NaN is like NaN.
    gradNorms.push(String(await store.finishStep()));
  }
  const hash = await hashOf(store);
  const applied = store.steps;
  store.dispose();
  const alive = device.describeLive();
  if (alive.length > 0) throw new Error(`${JSON.stringify(run)} leaves buffers behind:\n${alive.join('\n')}`);
  return { hash, losses, gradNorms, applied };
}

async function pass(model: OddModel, device: Device, batch: ReturnType<typeof microBatch>, scale: number): Promise<number> {
  const loss = scope(() => {
    const on = ({ data, shape }: { data: ArrayLike<number>; shape: readonly number[] }) => fromHost(device, hostTensor(shape, 'i32', data));
    const { inputIds, labels } = batch as unknown as Record<keyof CausalBatch, Parameters<typeof on>[0]>;
    const loss = model.call({ inputIds: on(inputIds), labels: on(labels) });
    backward(loss, full(device, loss.shape, loss.dtype, scale));
    return loss;
  }).keep();
  const value = await loss.item();
  loss.dispose();
  return value;
}

async function hashOf(store: ZeroStore<OptimizerOptions>): Promise<string> {
  const hash = createHash('sha256');
  for (const kind of ['weights', ...store.readableStates]) {
    for await (const [name, { data }] of store.export(kind)) hash.update(kind).update(name).update(Float32Array.from(data));
  }
  return hash.digest('hex');
}
