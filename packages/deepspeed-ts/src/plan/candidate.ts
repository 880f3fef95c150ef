import type { DeepSpeedConfig } from '../config/index.js';
import type { PlannedSettings } from './memory-plan.js';
import { type PlanRequest, recomputes } from './request.js';

/** A way to set up the same run. */
export interface Candidate {
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

/** Every combination that leaves the samples of a step as they are; where there are more ranks than samples, a step takes one micro-batch of each. */
export function candidatesOf(
  { model, device, worldSize, batch }: PlanRequest,
  config: DeepSpeedConfig,
  canRecompute: boolean,
): Candidate[] {
  const { train_batch_size: samples, train_micro_batch_size_per_gpu: micro, bf16, fp16, optimizer, activation_checkpointing } = config;
  const { stage } = config.zero_optimization;
  const recompute: Candidate['recompute'] = activation_checkpointing.cpu_checkpointing ? 2 : recomputes(config, model) ? 1 : 0;
  const lower: readonly Candidate['recompute'][] = canRecompute
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
export function sameState(a: Candidate, b: Candidate): boolean {
  return a.stage === b.stage && a.bf16 === b.bf16 && a.eightBit === b.eightBit && a.worldSize === b.worldSize;
}

export function thriftiest(candidates: readonly Candidate[]): Candidate {
  return candidates.reduce((a, b) => (needsNoLess(a, b) ? b : a));
}

/** Whether a candidate gives up nothing that another one keeps. */
export function needsNoLess(candidate: Candidate, other: Candidate): boolean {
  return (
    candidate.stage <= other.stage &&
    candidate.microBatch >= other.microBatch &&
    candidate.recompute <= other.recompute &&
    candidate.bf16 <= other.bf16 &&
    candidate.eightBit <= other.eightBit &&
    candidate.worldSize <= other.worldSize
  );
}

export function patchOf(candidate: Candidate, config: DeepSpeedConfig, ranksBefore: number): Record<string, unknown> {
  const { stage, microBatch, recompute, worldSize } = candidate;
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
    ...numbersPatch(candidate),
  };
}

/** What of the change decides how numbers are stored. */
export function numbersPatch({ bf16, eightBit }: Candidate): Record<string, unknown> {
  return { ...(bf16 && { bf16: { enabled: true } }), ...(eightBit && { optimizer: { type: 'AdamW8bit' } }) };
}

const SHARDED = ['nothing', 'optimizer state', 'optimizer state and gradients', 'optimizer state, gradients and parameters'] as const;

export function sentences(candidate: Candidate, request: PlanRequest, config: DeepSpeedConfig): string[] {
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

export function batchOf(
  { microBatch, worldSize }: Candidate,
  { train_batch_size: before }: DeepSpeedConfig,
): { samples: number; steps: number } {
  const samples = Math.max(before, microBatch * worldSize);
  return { samples, steps: samples / (microBatch * worldSize) };
}

/** All divisors, largest first. */
function divisors(n: number): number[] {
  return Array.from({ length: n }, (_, i) => n - i).filter((d) => n % d === 0);
}
