import { ConfigError } from '@deepspeed-ts/core';
import { type DeepSpeedConfig, loadConfig } from '../config/index.js';
import { drySetup } from './dry-run.js';
import type { MemoryPlan, PlannedSettings } from './memory-plan.js';
import { merged, type PlanRequest, planRequest, recomputes } from './request.js';

/** A change of a run that does not fit, which does. */
export interface Proposal {
  /** What changes, for people. */
  readonly changes: readonly string[];
  /** To be merged into the config. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly worldSize: number;
  /** How it was planned to fit. */
  readonly plan: MemoryPlan;
}

/** A way to set up the same run. */
interface Candidate {
  readonly stage: PlannedSettings['stage'];
  readonly microBatch: number;
  /** Activations: 0 as they are, 1 recomputed, 2 their inputs in host memory too. */
  readonly recompute: 0 | 1 | 2;
  readonly eightBit: boolean;
  readonly bf16: boolean;
  readonly worldSize: number;
  readonly cost: number;
}

/**
 * What changes cost, as a share of a step's time where that can be said. Stages 1 and 2 send as many bytes as stage 0; half the micro-batch
 * makes smaller products; stage 3 sends half as much again; recomputing runs forward twice in three passes' worth of work. Then what is more
 * than slower: other rounding, and more devices.
 */
const COST = {
  stage: [0, 0.01, 0.02, 0.25],
  halfMicroBatch: 0.1,
  recompute: [0, 0.33, 0.5],
  bf16: 1,
  eightBit: 1.5,
  twiceRanks: 10,
} as const;

const MOST_RANKS = 1024;

/**
 * The cheapest change, or combination of changes, after which each rank's needs fit into `memory` bytes. Candidates are tried in the order
 * of their cost, each planned by itself; what gives up nothing that a failed one kept is left out.
 */
export async function cheapestFit(request: PlanRequest, memory: number): Promise<Proposal | undefined> {
  const config = loadConfig(request.raw, request.worldSize);
  const candidates = candidatesOf(request, config).sort((a, b) => a.cost - b.cost);
  const known = new Map<Candidate, MemoryPlan | 'too much' | 'refused'>();
  const tried = async (candidate: Candidate) => {
    const raw = merged(request.raw, patchOf(candidate, config, request.worldSize));
    const result = known.get(candidate) ?? (await planWithin({ ...request, raw, worldSize: candidate.worldSize }, memory));
    known.set(candidate, result);
    return result;
  };
  const failed = (candidate: Candidate) =>
    [...known].some(([other, result]) => result === 'too much' && other !== candidate && needsNoLess(candidate, other));
  for (const candidate of candidates) {
    if (failed(candidate)) continue;
    // Of those that differ in activations alone, the thriftiest first: where it fails, so do the others.
    const thriftiest = candidates.filter((other) => sameState(candidate, other)).reduce((a, b) => (needsNoLess(a, b) ? b : a));
    if ((await tried(thriftiest)) === 'too much') continue;
    const planned = await tried(candidate);
    if (typeof planned === 'string') continue;
    const { worldSize } = candidate;
    return {
      changes: sentences(candidate, request, config),
      config: patchOf(candidate, config, request.worldSize),
      worldSize,
      plan: planned,
    };
  }
  return undefined;
}

/** The plan where it fits; 'refused' where the config forbids the combination. State alone is looked at first: that is quicker. */
async function planWithin(request: PlanRequest, memory: number): Promise<MemoryPlan | 'too much' | 'refused'> {
  try {
    const config = loadConfig(request.raw, request.worldSize);
    const { peak } = await drySetup({ ...request, config, ranks: request.worldSize, memory: request.memoryModel });
    if (peak > memory) return 'too much';
    const planned = await planRequest(request);
    return planned.required <= memory ? planned : 'too much';
  } catch (error) {
    if (error instanceof ConfigError) return 'refused';
    throw error;
  }
}

/** Every combination that leaves the samples of a step as they are; where there are more ranks than samples, a step takes one micro-batch of each. */
function candidatesOf({ model, device, worldSize, batch }: PlanRequest, config: DeepSpeedConfig): Candidate[] {
  const { train_batch_size: samples, train_micro_batch_size_per_gpu: micro, bf16, fp16, optimizer, activation_checkpointing } = config;
  const { stage } = config.zero_optimization;
  const recompute: Candidate['recompute'] = activation_checkpointing.cpu_checkpointing ? 2 : recomputes(config, model) ? 1 : 0;
  const lower: readonly Candidate['recompute'][] = batch
    ? ([0, 1, 2] as const).filter((level) => level >= recompute && (level < 2 || device === 'cuda'))
    : [recompute];
  const adam = optimizer?.type === 'AdamW' || optimizer?.type === 'Adam';
  const worlds = [worldSize];
  for (let ranks = 2 * worldSize; ranks <= MOST_RANKS; ranks *= 2) worlds.push(ranks);
  const result: Candidate[] = [];
  for (const ranks of worlds)
    for (const microBatch of batch ? divisors(micro) : [micro])
      for (const narrow of bf16.enabled || fp16.enabled ? [false] : [false, true])
        for (const eightBit of adam ? [false, true] : [false])
          for (const level of lower)
            for (const shards of ([0, 1, 2, 3] as const).filter((s) => s >= stage && (s === stage || ranks > 1))) {
              if (samples >= ranks * microBatch && samples % (ranks * microBatch) !== 0) continue;
              const cost =
                COST.stage[shards] -
                COST.stage[stage] +
                COST.halfMicroBatch * Math.log2(micro / microBatch) +
                COST.recompute[level] -
                COST.recompute[recompute] +
                COST.bf16 * Number(narrow) +
                COST.eightBit * Number(eightBit) +
                COST.twiceRanks * Math.log2(ranks / worldSize);
              result.push({ stage: shards, microBatch, recompute: level, bf16: narrow, eightBit, worldSize: ranks, cost });
            }
  return result;
}

/** Whether two differ in what they hold of activations alone. */
function sameState(a: Candidate, b: Candidate): boolean {
  return a.stage === b.stage && a.bf16 === b.bf16 && a.eightBit === b.eightBit && a.worldSize === b.worldSize;
}

/** Whether a candidate gives up nothing that another one keeps. */
function needsNoLess(candidate: Candidate, other: Candidate): boolean {
  return (
    candidate.stage <= other.stage &&
    candidate.microBatch >= other.microBatch &&
    candidate.recompute <= other.recompute &&
    candidate.bf16 <= other.bf16 &&
    candidate.eightBit <= other.eightBit &&
    candidate.worldSize <= other.worldSize
  );
}

function patchOf(candidate: Candidate, config: DeepSpeedConfig, ranksBefore: number): Record<string, unknown> {
  const { stage, microBatch, recompute, bf16, eightBit, worldSize } = candidate;
  const { train_micro_batch_size_per_gpu: micro } = config;
  const { samples, steps } = batchOf(candidate, config);
  return {
    ...(stage !== config.zero_optimization.stage && { zero_optimization: { stage } }),
    ...((microBatch !== micro || worldSize !== ranksBefore) && {
      train_batch_size: samples,
      train_micro_batch_size_per_gpu: microBatch,
      gradient_accumulation_steps: steps,
    }),
    ...(recompute > 0 && { activation_checkpointing: { enabled: true, ...(recompute === 2 && { cpu_checkpointing: true }) } }),
    ...(bf16 && { bf16: { enabled: true } }),
    ...(eightBit && { optimizer: { type: 'AdamW8bit' } }),
  };
}

const SHARDED = ['nothing', 'optimizer state', 'optimizer state and gradients', 'optimizer state, gradients and parameters'] as const;

function sentences(candidate: Candidate, request: PlanRequest, config: DeepSpeedConfig): string[] {
  const { stage, microBatch, recompute, bf16, eightBit, worldSize } = candidate;
  const says: string[] = [];
  if (stage !== config.zero_optimization.stage) says.push(`stage ${stage}, which shards ${SHARDED[stage]}`);
  if (microBatch !== config.train_micro_batch_size_per_gpu)
    says.push(`micro-batches of ${microBatch}, ${batchOf(candidate, config).steps} to a step`);
  if (recompute === 1 && !recomputes(config, request.model)) says.push('blocks recomputed in backward');
  if (recompute === 2 && !config.activation_checkpointing.cpu_checkpointing)
    says.push('blocks recomputed in backward, from inputs in host memory');
  if (bf16) says.push('bf16 instead of f32');
  if (eightBit) says.push('optimizer state in 8 bits');
  if (worldSize !== request.worldSize) says.push(`${worldSize} ranks instead of ${request.worldSize}`);
  return says;
}

function batchOf({ microBatch, worldSize }: Candidate, { train_batch_size: before }: DeepSpeedConfig): { samples: number; steps: number } {
  const samples = Math.max(before, microBatch * worldSize);
  return { samples, steps: samples / (microBatch * worldSize) };
}

/** All divisors, largest first. */
function divisors(n: number): number[] {
  return Array.from({ length: n }, (_, i) => n - i).filter((d) => n % d === 0);
}
