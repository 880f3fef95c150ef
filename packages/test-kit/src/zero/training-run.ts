import { createHash } from 'node:crypto';
import type { Backend, Communicator, QuantizedFormat } from '@deepspeed-ts/core';
import { scale, scope, uniforms } from '@deepspeed-ts/core';
import { type Batch, type DeepSpeedEngine, initialize } from 'deepspeed-ts';
import { buildModel, CONTEXT, type ModelName, VOCABULARY } from './models.js';

/** One training, as data: what a rank needs to repeat it. */
export interface TrainingRun {
  readonly model: ModelName;
  readonly stage: 0 | 1 | 2 | 3;
  readonly bf16?: boolean;
  /** No f32 copy of bf16 weights. */
  readonly bf16Masters?: boolean;
  readonly bf16States?: boolean;
  /** Float16 with a scale that soon rises. */
  readonly fp16?: boolean;
  /** Steps in which the gradients of the last rank are infinite. */
  readonly overflowAt?: readonly number[];
  readonly accumulation?: number;
  readonly overlap?: boolean;
  readonly prefetch?: boolean;
  readonly dropout?: number;
  readonly recompute?: boolean;
  /** What the frozen weights beside adapters are kept as. */
  readonly quantization?: QuantizedFormat;
  /** bf16 weights with gradients kept in f32. */
  readonly f32Gradients?: boolean;
  /** Default: AdamW. */
  readonly optimizer?: { readonly type: string; readonly params: object };
  readonly steps: number;
}

export interface TrainingResult {
  /** Sha-256 of all master weights with their names. */
  readonly hash: string;
  readonly losses: readonly number[];
  readonly gradNorms: readonly number[];
  /** After each step. */
  readonly lossScales: readonly number[];
  readonly skippedSteps: number;
}

export const CLIP = 0.5;

/** Small enough that clipping is on in some of the steps and off in others. */
export function configOf(run: TrainingRun): Record<string, unknown> {
  const { stage, bf16 = false, fp16 = false, accumulation = 1, overlap = true, prefetch = true, f32Gradients = false } = run;
  return {
    train_micro_batch_size_per_gpu: 2,
    gradient_accumulation_steps: accumulation,
    gradient_clipping: CLIP,
    bf16: {
      enabled: bf16,
      check_grad_overflow: bf16,
      bf16_master_weights_and_grads: run.bf16Masters ?? false,
      bf16_optimizer_states: run.bf16States ?? false,
    },
    fp16: { enabled: fp16, initial_scale_power: 10, loss_scale_window: 2 },
    ...(f32Gradients && { data_types: { grad_accum_dtype: 'fp32' } }),
    zero_optimization: { stage, overlap_comm: overlap, stage3_prefetch_bucket_size: prefetch ? 50000000 : 0 },
    optimizer: run.optimizer ?? { type: 'AdamW', params: { lr: 1e-2, betas: [0.9, 0.99], eps: 1e-6, weight_decay: 0.1 } },
  };
}

/** Micro-batch `micro` of rank `rank` in step `step`: every rank draws its own. */
export function microBatch(step: number, micro: number, rank: number): Batch {
  const shape = [2, CONTEXT];
  const draw = uniforms({ seed: 11, step: step * 16 + micro, stream: rank }, 0, 2 * CONTEXT);
  const data = Int32Array.from(draw, (u) => Math.floor(u * u * VOCABULARY));
  return { inputIds: { data, shape }, labels: { data, shape } };
}

/** On the registered backend of the highest priority where none is given. */
export async function openEngine(run: TrainingRun, communicator: Communicator, backend?: Backend): Promise<DeepSpeedEngine> {
  const model = buildModel(run.model, { ...run, rank: communicator.rank });
  const { engine } = await initialize({ model, communicator, seed: 3, config: configOf(run), ...(backend && { backend }) });
  return engine;
}

/** The micro-batches of one step on this rank; `ranks` above one makes a single process do the work of as many. */
export function batchesOf(run: TrainingRun, step: number, rank: number, ranks = 1): Batch[] {
  const perRank = (run.accumulation ?? 1) / ranks;
  return Array.from({ length: run.accumulation ?? 1 }, (_, i) => microBatch(step, i % perRank, rank + Math.floor(i / perRank)));
}

/** Trains from the beginning, disposes the engine, and checks that it gave back all that it took. */
export async function train(run: TrainingRun, communicator: Communicator, backend?: Backend): Promise<TrainingResult> {
  const engine = await openEngine(run, communicator, backend);
  const losses: number[] = [];
  const gradNorms: number[] = [];
  const lossScales: number[] = [];
  for (let step = 0; step < run.steps; step++) {
    const batches = batchesOf(run, step, communicator.rank);
    if (run.overflowAt?.includes(step)) {
      await overflow(engine, batches);
    } else {
      losses.push(await engine.trainBatch(batches));
      gradNorms.push(engine.globalGradNorm);
    }
    lossScales.push(engine.lossScale);
  }
  const hash = await hashOf(engine);
  const { skippedSteps } = engine;
  await close(engine);
  return { hash, losses, gradNorms, lossScales, skippedSteps };
}

/** A step in which the last micro-batch of the last rank overflows. */
async function overflow(engine: DeepSpeedEngine, batches: readonly Batch[]): Promise<void> {
  for (const batch of batches) {
    const loss = engine.forward(batch);
    const bad = engine.rank === engine.worldSize - 1 && engine.isGradientAccumulationBoundary();
    scope(() => engine.backward(bad ? scale(loss, Number.POSITIVE_INFINITY) : loss));
    await engine.step();
  }
}

export async function hashOf(engine: DeepSpeedEngine): Promise<string> {
  const hash = createHash('sha256');
  for await (const [name, { data }] of engine.weights()) hash.update(name).update(Float32Array.from(data));
  return hash.digest('hex');
}

/** Disposes an engine and its model. @throws Error listing the buffers that are still alive then */
export async function close(engine: DeepSpeedEngine): Promise<void> {
  await engine.dispose();
  (engine.model as unknown as { dispose(): void }).dispose();
  const alive = engine.device.describeLive();
  if (alive.length > 0) throw new Error(`buffers are alive after dispose():\n${alive.join('\n')}`);
}
