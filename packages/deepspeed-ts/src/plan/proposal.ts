import { ConfigError } from '@deepspeed-ts/core';
import { type DeepSpeedConfig, loadConfig } from '../config/index.js';
import {
  batchOf,
  type Candidate,
  candidatesOf,
  needsNoLess,
  numbersPatch,
  patchOf,
  sameState,
  sentences,
  thriftiest,
} from './candidate.js';
import { drySetup } from './dry-run.js';
import type { MemoryPlan } from './memory-plan.js';
import { merged, type PlanRequest, planRequest } from './request.js';

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

/**
 * The cheapest change, or combination of changes, after which each rank's needs fit into `memory` bytes. Candidates are tried in the order
 * of their cost, each planned by itself; what gives up nothing that a failed one kept is left out.
 */
export async function cheapestFit(request: PlanRequest, memory: number): Promise<Proposal | undefined> {
  const config = loadConfig(request.raw, request.worldSize);
  const trials = new Trials(request, config, memory);
  const candidates = candidatesOf(request, config, await canRecompute(request, config))
    .filter((candidate) => trials.isPossible(candidate))
    .sort((a, b) => a.cost - b.cost);
  for (const candidate of candidates) {
    // Where the thriftiest of all, of this number of ranks, or of this state fails, so do the others.
    const alike = [
      candidates,
      candidates.filter((other) => other.worldSize === candidate.worldSize),
      candidates.filter((other) => sameState(candidate, other)),
    ];
    if (await trials.anyFails(alike.map(thriftiest))) continue;
    const planned = await trials.plan(candidate);
    if (!planned || !trials.isAllowed(candidate)) continue;
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

/** Plans of candidates, each made once. */
class Trials {
  readonly #plans = new Map<Candidate, MemoryPlan | undefined>();
  readonly #failed: Candidate[] = [];
  readonly #configs = new Map<string, DeepSpeedConfig | undefined>();

  constructor(
    readonly request: PlanRequest,
    readonly config: DeepSpeedConfig,
    readonly memory: number,
  ) {}

  async anyFails(candidates: readonly Candidate[]): Promise<boolean> {
    for (const candidate of candidates) if (!(await this.plan(candidate))) return true;
    return false;
  }

  /** `undefined` where it does not fit. */
  async plan(candidate: Candidate): Promise<MemoryPlan | undefined> {
    if (this.#plans.has(candidate)) return this.#plans.get(candidate);
    if (this.#failed.some((other) => needsNoLess(candidate, other))) return undefined;
    const planned = await this.#plan(candidate);
    this.#plans.set(candidate, planned);
    if (!planned) this.#failed.push(candidate);
    return planned;
  }

  /** Whether the config has such an optimizer and precision. */
  isPossible(candidate: Candidate): boolean {
    return this.#configOf(candidate) !== undefined;
  }

  /** Whether the config takes the change as a whole. */
  isAllowed(candidate: Candidate): boolean {
    const { raw, worldSize } = this.request;
    return this.#load(merged(raw, patchOf(candidate, this.config, worldSize)), candidate.worldSize) !== undefined;
  }

  /** State alone is looked at first: that is quicker. */
  async #plan(candidate: Candidate): Promise<MemoryPlan | undefined> {
    const config = this.#configOf(candidate)!;
    const request = { ...this.request, worldSize: candidate.worldSize };
    const { peak } = await drySetup({ ...request, config, ranks: candidate.worldSize, memory: request.memoryModel });
    if (peak > this.memory) return undefined;
    const planned = await planRequest(request, config);
    return planned.required <= this.memory ? planned : undefined;
  }

  /** Put together, for checking a config takes longer than planning some models. */
  #configOf(candidate: Candidate): DeepSpeedConfig | undefined {
    const { stage, bf16, eightBit, recompute, microBatch } = candidate;
    const key = `${bf16} ${eightBit}`;
    const { raw, worldSize } = this.request;
    if (!this.#configs.has(key)) this.#configs.set(key, this.#load(merged(raw, numbersPatch(candidate)), worldSize));
    const base = this.#configs.get(key);
    if (!base) return undefined;
    const { samples, steps } = batchOf(candidate, this.config);
    return {
      ...base,
      zero_optimization: { ...base.zero_optimization, stage },
      train_batch_size: samples,
      train_micro_batch_size_per_gpu: microBatch,
      gradient_accumulation_steps: steps,
      activation_checkpointing: {
        ...base.activation_checkpointing,
        ...(recompute > 0 && { enabled: true }),
        ...(recompute === 2 && { cpu_checkpointing: true }),
      },
    };
  }

  #load(raw: object, worldSize: number): DeepSpeedConfig | undefined {
    try {
      return loadConfig(raw, worldSize);
    } catch (error) {
      if (error instanceof ConfigError) return undefined;
      throw error;
    }
  }
}

/** Whether the model has blocks that can be recomputed. */
async function canRecompute(request: PlanRequest, config: DeepSpeedConfig): Promise<boolean> {
  if (!request.batch) return false;
  try {
    await planRequest(request, { ...config, activation_checkpointing: { ...config.activation_checkpointing, enabled: true } });
    return true;
  } catch (error) {
    if (error instanceof ConfigError) return false;
    throw error;
  }
}
