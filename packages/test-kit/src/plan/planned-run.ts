import { type Backend, type Communicator, type MemoryKind, type QuantizedFormat, quantizeWeights, uniforms } from '@deepspeed-ts/core';
import { CudaBackend } from '@deepspeed-ts/kernels-cuda';
import { DecoderLM, decoderConfig, getPeftModel, gpt2, type PeftModel } from '@deepspeed-ts/transformers';
import { type Batch, initialize, type PlanOptions } from 'deepspeed-ts';

/** One training whose memory is planned and then measured, as data. */
export interface PlannedRun {
  readonly family: 'gpt2' | 'llama' | 'mixtral' | 'qwen3' | 'gemma2' | 'gpt_neox';
  readonly stage: 0 | 1 | 2 | 3;
  readonly precision: 'fp32' | 'bf16' | 'fp16';
  readonly accumulation: number;
  readonly recompute: boolean;
  /** Merged into the config. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly dropout?: number;
  /** Adapters on a frozen model, which is kept as it is or as codes. */
  readonly adapters?: 'plain' | QuantizedFormat;
}

/** What the allocator's own counters say of one rank. */
export interface MeasuredMemory {
  readonly peak: number;
  readonly reserved: number;
  readonly workspace: number;
  /** Device memory that is gone and not in the counters, where the device tells. */
  readonly outside?: number;
  readonly kinds: Readonly<Record<'parameters' | 'gradients' | 'optimizer' | 'activations', number>>;
}

/** How large the models are: tests on a CPU want small ones. */
export interface RunScale {
  readonly dim: number;
  readonly layers: number;
  readonly vocabulary: number;
  readonly tokens: number;
  readonly microBatch: number;
  readonly headDim: number;
}

export const SMALL: RunScale = { dim: 64, layers: 3, vocabulary: 300, tokens: 24, microBatch: 2, headDim: 16 };

export function plannedModel(
  { family, recompute, dropout = 0, adapters }: PlannedRun,
  { dim, layers, vocabulary, tokens, headDim }: RunScale,
): DecoderLM | PeftModel {
  const heads = dim / headDim;
  const model = new DecoderLM(
    family === 'gpt2'
      ? gpt2({ vocabSize: vocabulary, layers, heads, dim, context: tokens, dropout })
      : decoderConfig({
          model_type: family,
          vocab_size: vocabulary,
          hidden_size: dim,
          num_hidden_layers: layers,
          num_attention_heads: heads,
          num_key_value_heads: heads / 2,
          head_dim: headDim,
          intermediate_size: 3 * dim,
          max_position_embeddings: tokens,
          // Llama's config has no such field, and no experts.
          output_router_logits: true,
        }),
  );
  model.recompute = recompute;
  if (adapters === undefined) return model;
  if (adapters !== 'plain') quantizeWeights(model, adapters);
  return getPeftModel(model, { r: 8, loraDropout: dropout });
}

export function plannedConfig({ stage, precision, accumulation, config }: PlannedRun, { microBatch }: RunScale): Record<string, unknown> {
  return {
    train_micro_batch_size_per_gpu: microBatch,
    gradient_accumulation_steps: accumulation,
    gradient_clipping: 1,
    bf16: { enabled: precision === 'bf16' },
    fp16: { enabled: precision === 'fp16', initial_scale_power: 8 },
    zero_optimization: { stage },
    optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    ...config,
  };
}

/** What the planner is asked about a run. */
export function planOptions(run: PlannedRun, worldSize: number, device: 'cpu' | 'cuda', scale: RunScale = SMALL): PlanOptions {
  const { tokens: sequenceLength } = scale;
  return { model: plannedModel(run, scale), config: plannedConfig(run, scale), worldSize, device, sequenceLength };
}

/** Trains three steps and reads the counters. */
export async function measure(
  run: PlannedRun,
  communicator: Communicator,
  backend: Backend & { trim(): void },
  scale: RunScale = SMALL,
): Promise<MeasuredMemory> {
  await backend.synchronize();
  backend.trim();
  backend.resetPeak();
  const { engine } = await initialize({ model: plannedModel(run, scale), communicator, backend, config: plannedConfig(run, scale) });
  const { tokens, vocabulary, microBatch } = scale;
  const shape = [microBatch, tokens];
  const batch = (step: number): Batch => {
    const data = Int32Array.from(uniforms({ seed: 5, step }, 0, microBatch * tokens), (u) => Math.floor(u * vocabulary));
    return { inputIds: { data, shape }, labels: { data, shape } };
  };
  for (let step = 0; step < 3; step++) await engine.trainBatch(Array.from({ length: run.accumulation }, () => batch(step)));
  await backend.synchronize();
  const { peak, reserved, workspace } = backend.memory();
  const outside = outsideOf(backend, reserved + workspace);
  const of = (kind: MemoryKind) => engine.device.memory(kind).peak;
  const kinds = {
    parameters: of('parameters'),
    gradients: of('gradients'),
    optimizer: of('optimizer'),
    activations: of('activations'),
  };
  await engine.dispose();
  return { peak, reserved, workspace, kinds, ...(outside !== undefined && { outside }) };
}

/** What is gone of a GPU beyond what is counted. */
function outsideOf(backend: Backend, counted: number): number | undefined {
  if (!(backend instanceof CudaBackend)) return undefined;
  const { deviceTotal, deviceFree } = backend.native.memory();
  return deviceTotal - deviceFree - counted;
}

const STAGES = [0, 1, 2, 3] as const;
const PRECISIONS = ['fp32', 'bf16', 'fp16'] as const;
const FAMILIES = ['gpt2', 'llama'] as const;

/** Adapters on weights of each kind, at every stage. */
export function adapterSweep(): PlannedRun[] {
  const kinds = ['plain', 'nf4', 'int8'] as const;
  return STAGES.flatMap((stage) =>
    kinds.map((adapters, i): PlannedRun => {
      const family = FAMILIES[(stage + i) % FAMILIES.length]!;
      const dropout = family === 'gpt2' && i > 0 ? 0.1 : 0;
      return { family, stage, precision: 'bf16', accumulation: 1 + (stage % 2), recompute: i === 1, adapters, dropout };
    }),
  );
}

/** Every stage, precision and family; accumulation and recomputing go through all their pairs meanwhile, beginning elsewhere in each world. */
export function sweep(world: number): PlannedRun[] {
  let turn = world;
  return FAMILIES.flatMap((family) =>
    STAGES.flatMap((stage) =>
      PRECISIONS.map((precision): PlannedRun => {
        const accumulation = 1 + (turn % 3);
        const recompute = Math.floor(turn / 3) % 2 === 1;
        turn++;
        return { family, stage, precision, accumulation, recompute };
      }),
    ),
  );
}

export function nameOf({ family, stage, precision, accumulation, recompute, config = {}, adapters }: PlannedRun, world: number): string {
  const extra = Object.keys(config).length > 0 ? `, ${JSON.stringify(config)}` : '';
  return `${family}, stage ${stage}, ${precision}, ${accumulation} micro-batches${recompute ? ', recomputed' : ''}, ${adapters ? `adapters on ${adapters} weights, ` : ''}${world} ranks${extra}`;
}
