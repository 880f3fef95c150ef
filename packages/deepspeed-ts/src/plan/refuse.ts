import type { Backend } from '@deepspeed-ts/core';
import { decoderOf } from '@deepspeed-ts/transformers';
import type { DeepSpeedConfig } from '../config/index.js';
import { readConfig } from '../config/source.js';
import type { DeviceName } from '../device.js';
import type { EngineOptions } from '../engine/assemble.js';
import { parseBytes } from './bytes.js';
import { drySetup } from './dry-run.js';
import { DoesNotFitError } from './errors.js';
import { cheapestFit } from './proposal.js';
import { memoryModelOf, type PlanRequest, planRequest, requestOf } from './request.js';

export interface RefusalOptions extends Pick<EngineOptions, 'model' | 'optimizer' | 'parameterGroups'> {
  readonly config: string | object;
  readonly memoryLimit?: number | string;
}

/**
 * Refuses an engine whose weights and optimizer state alone are more than its device has, before anything is allocated. Whether a step
 * fits too depends on its batches, which nobody has seen yet: that is for `plan`.
 *
 * @throws DoesNotFitError with the cheapest change that fits, planned for the longest sequences of the model
 */
export async function refuseWhatCannotFit(
  options: RefusalOptions,
  config: DeepSpeedConfig,
  ranks: number,
  backend: Backend,
): Promise<void> {
  const limit = options.memoryLimit === undefined ? backend.memory().limit : parseBytes(options.memoryLimit, 'memoryLimit');
  if (limit === undefined || backend.dry) return;
  const device: DeviceName = backend.name === 'cuda' ? 'cuda' : 'cpu';
  const { model, optimizer, parameterGroups } = options;
  const own = { ...(optimizer && { optimizer }), ...(parameterGroups && { parameterGroups }) };
  const memory = await memoryModelOf(device);
  const state = await drySetup({ model, config, ranks, memory, ...own });
  if (state.peak <= limit) return;
  const stateAlone: PlanRequest = {
    ...own,
    model,
    raw: readConfig(options.config).raw as Readonly<Record<string, unknown>>,
    worldSize: ranks,
    sequenceLength: undefined,
    batch: undefined,
    device,
    memoryModel: memory,
  };
  const whole = decoderOf(model) ? await requestOf({ ...own, model, config: options.config, worldSize: ranks, device }) : stateAlone;
  throw new DoesNotFitError(await planRequest(stateAlone, config), limit, await cheapestFit(whole, limit));
}
