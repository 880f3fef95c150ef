import { type ComposeOptions, type ConfigOf, composeConfig } from '@deepspeed-ts/core';
import { zeroSection } from '@deepspeed-ts/zero';
import { monitorSection, profilingSection } from '../observe/config.js';
import { activationCheckpointingSection } from './activation-checkpointing.js';
import { type BatchTriad, batchSection, solveBatch } from './batch.js';
import { checkpointSection } from './checkpoint.js';
import { fp8Section } from './fp8.js';
import { optimizerSection } from './optimizer.js';
import { precisionSection } from './precision.js';
import { reportsSection } from './reports.js';
import { readConfig } from './source.js';

/** The sections of a training config, in the order of the reference page. */
export const SECTIONS = [
  batchSection,
  optimizerSection,
  zeroSection,
  precisionSection,
  fp8Section,
  activationCheckpointingSection,
  checkpointSection,
  reportsSection,
  monitorSection,
  profilingSection,
] as const;

/** A valid training config: every default filled in, the three batch sizes solved for the run's number of ranks. Frozen. */
export type DeepSpeedConfig = Omit<ConfigOf<typeof SECTIONS>, keyof BatchTriad> & BatchTriad;

/**
 * Reads and checks a config for a run.
 *
 * @param config - An object, the path of a JSON or HJSON file, or JSON in base64.
 * @param worldSize - Data-parallel ranks of the run.
 * @param options - `resolveAuto` gives values for `"auto"`.
 * @throws ConfigError listing every problem, each with file, line and column where the config came from text.
 */
export function loadConfig(config: string | object, worldSize: number, options: Pick<ComposeOptions, 'resolveAuto'> = {}): DeepSpeedConfig {
  const { raw, locate } = readConfig(config);
  const composed = composeConfig(SECTIONS, raw, { ...options, worldSize, ...(locate && { locate }) });
  // Sizes that don't fit have thrown in the section's check.
  const sizes = solveBatch(composed, worldSize, () => {})!;
  return Object.freeze({ ...composed, ...sizes });
}
