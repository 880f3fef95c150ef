import { type DeepSpeedConfig, loadConfig } from '../config/index.js';
import { parseBytes } from './bytes.js';
import { DoesNotFitError } from './errors.js';
import type { MemoryPlan } from './memory-plan.js';
import { cheapestFit } from './proposal.js';
import { type PlanOptions, planRequest, requestOf } from './request.js';

/**
 * Plans the memory of a run without taking any: the engine itself trains two steps on a device that only counts, so the peak is the
 * one that the real allocator will report. Takes a second or so for models of any size.
 *
 * @throws DoesNotFitError when `memory` is given and not enough, with the plan and the cheapest change that would fit
 * @throws ConfigError as `initialize` does
 */
export async function plan(options: PlanOptions): Promise<MemoryPlan> {
  const memory = options.memory === undefined ? undefined : parseBytes(options.memory, 'memory');
  const config = loadConfig(options.config, options.worldSize);
  const request = await requestOf(options);
  const planned = await planRequest(request, options.recompute ? withRecompute(config) : config);
  if (memory === undefined || planned.required <= memory) return planned;
  throw new DoesNotFitError(planned, memory, await cheapestFit(request, memory));
}

function withRecompute(config: DeepSpeedConfig): DeepSpeedConfig {
  return { ...config, activation_checkpointing: { ...config.activation_checkpointing, enabled: true } };
}
