import { ConfigError } from '@deepspeed-ts/core';
import { loadConfig } from '../config/index.js';
import { drySetup } from './dry-run.js';
import type { MemoryPlan, PlannedSettings } from './memory-plan.js';
import { canRecompute, type PlanRequest, planRequest } from './request.js';

/** A change of a run that does not fit, which does. */
export interface Proposal {
  /** What changes, one sentence each, for people. */
  readonly changes: readonly string[];
  /** To be merged into the config. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Whether the model is to recompute its blocks (`model.recompute = true`). */
  readonly recompute: boolean;
  readonly worldSize: number;
  /** How it was planned to fit. */
  readonly plan: MemoryPlan;
}

/** A way to set up the same run. */
interface Candidate {
  readonly stage: PlannedSettings['stage'];
  readonly microBatch: number;
  readonly recompute: boolean;
  readonly bf16: boolean;
  readonly worldSize: number;
  readonly cost: number;
}

/**
 * What changes cost, as a share of a step's time where that can be said. Stages 1 and 2 send as many bytes as stage 0; half the micro-batch
 * makes smaller products; stage 3 sends half as much again; recomputing runs forward twice, of three passes' worth. Then what is more
 * than slower: other rounding, and more devices.
 */
const COST = { stage: [0, 0.01, 0.02, 0.25], halfMicroBatch: 0.1, recompute: 0.33, bf16: 1, twiceRanks: 10 } as const;

const MOST_RANKS = 1024;

/**
 * The cheapest change, or combination of changes, after which each rank's needs fit into `memory` bytes. Candidates are tried in the order
 * of their cost, each planned by itself; what must need more than one that failed is left out.
 */
export async function cheapestFit(request: PlanRequest, memory: number): Promise<Proposal | undefined> {
  const config = loadConfig(request.raw, request.worldSize);
  const failed: Candidate[] = [];
  for (const candidate of candidatesOf(request, config).sort((a, b) => a.cost - b.cost)) {
    if (failed.some((other) => needsNoLess(candidate, other))) continue;
    const patch = patchOf(candidate, config, request.worldSize);
    const { worldSize, recompute } = candidate;
    const changed: PlanRequest = { ...request, raw: merged(request.raw, patch), worldSize, recompute };
    const planned = await planWithin(changed, memory);
    if (!planned) failed.push(candidate);
    else return { changes: sentences(candidate, request, config), config: patch, recompute, worldSize, plan: planned };
  }
  return undefined;
}

/** The plan if it fits. State alone is looked at first: that is quicker. */
async function planWithin(request: PlanRequest, memory: number): Promise<MemoryPlan | undefined> {
  try {
    const config = loadConfig(request.raw, request.worldSize);
    const { reserved } = await drySetup({ ...request, config, ranks: request.worldSize, memory: request.memoryModel });
    if (reserved > memory) return undefined;
    const planned = await planRequest(request);
    return planned.required <= memory ? planned : undefined;
  } catch (error) {
    // A combination that the config forbids is no way out.
    if (error instanceof ConfigError) return undefined;
    throw error;
  }
}

type Config = ReturnType<typeof loadConfig>;

function candidatesOf({ model, worldSize, recompute }: PlanRequest, config: Config): Candidate[] {
  const { train_batch_size: batch, train_micro_batch_size_per_gpu: micro } = config;
  const { stage } = config.zero_optimization;
  const f32 = !config.bf16.enabled && !config.fp16.enabled;
  const worlds = [worldSize];
  for (let ranks = 2 * worldSize; ranks <= MOST_RANKS; ranks *= 2) worlds.push(ranks);
  const result: Candidate[] = [];
  for (const ranks of worlds)
    for (const microBatch of divisors(micro))
      for (const bf16 of f32 ? [false, true] : [false])
        for (const again of canRecompute(model) && !recompute ? [false, true] : [recompute])
          for (const shards of ([0, 1, 2, 3] as const).filter((s) => s >= stage && (s === stage || ranks > 1))) {
            // The same samples in a step; where there are more ranks than samples, a step takes one micro-batch of each.
            if (batch >= ranks * microBatch && batch % (ranks * microBatch) !== 0) continue;
            const cost =
              COST.stage[shards] -
              COST.stage[stage] +
              COST.halfMicroBatch * Math.log2(micro / microBatch) +
              COST.recompute * Number(again !== recompute) +
              COST.bf16 * Number(bf16) +
              COST.twiceRanks * Math.log2(ranks / worldSize);
            result.push({ stage: shards, microBatch, recompute: again, bf16, worldSize: ranks, cost });
          }
  return result;
}

/** Whether a candidate gives up nothing that another one keeps. */
function needsNoLess(candidate: Candidate, other: Candidate): boolean {
  return (
    candidate.stage <= other.stage &&
    candidate.microBatch >= other.microBatch &&
    candidate.recompute <= other.recompute &&
    candidate.bf16 <= other.bf16 &&
    candidate.worldSize <= other.worldSize
  );
}

function patchOf({ stage, microBatch, bf16, worldSize }: Candidate, config: Config, before: number): Record<string, unknown> {
  const { train_batch_size: batch, train_micro_batch_size_per_gpu: micro } = config;
  const samples = Math.max(batch, microBatch * worldSize);
  return {
    ...(stage !== config.zero_optimization.stage && { zero_optimization: { stage } }),
    ...(bf16 && { bf16: { enabled: true } }),
    ...((microBatch !== micro || worldSize !== before) && {
      train_batch_size: samples,
      train_micro_batch_size_per_gpu: microBatch,
      gradient_accumulation_steps: samples / (microBatch * worldSize),
    }),
  };
}

const SHARDED = ['', 'optimizer state', 'optimizer state and gradients', 'optimizer state, gradients and parameters'] as const;

function sentences(candidate: Candidate, request: PlanRequest, config: Config): string[] {
  const { stage, microBatch, recompute, bf16, worldSize } = candidate;
  const { train_micro_batch_size_per_gpu: micro, train_batch_size: batch } = config;
  const says: string[] = [];
  if (stage !== config.zero_optimization.stage) says.push(`zero_optimization.stage ${stage}: shard ${SHARDED[stage]}`);
  if (microBatch !== micro) {
    const steps = Math.max(batch, microBatch * worldSize) / (microBatch * worldSize);
    says.push(`train_micro_batch_size_per_gpu ${microBatch} with gradient_accumulation_steps ${steps}`);
  }
  if (recompute !== request.recompute) says.push('recompute activations in backward (model.recompute = true)');
  if (bf16) says.push('train in bf16');
  if (worldSize !== request.worldSize) says.push(`${worldSize} ranks instead of ${request.worldSize}`);
  return says;
}

/** All divisors, largest first. */
function divisors(n: number): number[] {
  return Array.from({ length: n }, (_, i) => n - i).filter((d) => n % d === 0);
}

/** `patch` over `base`, objects into objects. */
export function merged(base: Readonly<Record<string, unknown>>, patch: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(patch)) {
    const own = base[key];
    result[key] = isRecord(own) && isRecord(value) ? merged(own, value) : value;
  }
  return result;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
