import { type ComposeOptions, type ConfigKeyReport, type ConfigOf, composeConfig, explainConfig } from '@deepspeed-ts/core';
import { zeroSection } from '@deepspeed-ts/zero';
import { monitorSection, profilingSection } from '../observe/config.js';
import { absentSection } from './absent.js';
import { activationCheckpointingSection } from './activation-checkpointing.js';
import { type BatchTriad, batchSection, solveBatch } from './batch.js';
import { checkpointSection } from './checkpoint.js';
import { fp8Section } from './fp8.js';
import { optimizerSection } from './optimizer.js';
import { precisionSection } from './precision.js';
import { reportsSection } from './reports.js';
import { type ConfigSource, readConfig } from './source.js';

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
  absentSection,
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
  return checkedConfig(readConfig(config), worldSize, options);
}

/** The same for a config that has been read. */
export function checkedConfig(
  { raw, locate }: ConfigSource,
  worldSize: number,
  options: Pick<ComposeOptions, 'resolveAuto'> = {},
): DeepSpeedConfig {
  const composed = composeConfig(SECTIONS, raw, { ...options, worldSize, ...(locate && { locate }) });
  // Sizes that don't fit have thrown in the section's check.
  const sizes = solveBatch(composed, worldSize, () => {})!;
  return Object.freeze({ ...composed, ...sizes });
}

/** What each key of a config will do, and the batch sizes where they can be known. `auto`: take "auto" for a value that a trainer fills in. */
export interface CheckedConfig {
  readonly keys: readonly ConfigKeyReport[];
  readonly batch?: BatchTriad;
}

/**
 * Tells of every key of a config what it will do in a run of `worldSize` ranks; `loadConfig` throws where one is refused.
 *
 * @throws ConfigError where the config can't be read, or is no object
 */
export function checkConfigFile(config: string | object, worldSize: number, { auto = false }: { auto?: boolean } = {}): CheckedConfig {
  const { raw, locate } = readConfig(config);
  const usable = auto ? withoutAuto(raw) : { value: raw, auto: [] };
  const unknownBatch = BATCH_KEYS.some((key) => usable.auto.includes(key));
  // What a trainer will fill in is not missing.
  const open = ({ path, value }: ConfigKeyReport) =>
    value === undefined && (usable.auto.includes(path) || (unknownBatch && path === BATCH_KEYS[0]));
  const explained = explainConfig(SECTIONS, usable.value, { worldSize, ...(locate && { locate }) }).filter((key) => !open(key));
  const keys = [...explained, ...usable.auto.map(autoReport)];
  if (unknownBatch || keys.some(({ effect }) => effect === 'refused')) return { keys };
  const sizes = Object.fromEntries(BATCH_KEYS.map((key) => [key, (usable.value as Record<string, number>)[key] ?? null]));
  const batch = solveBatch(sizes as Parameters<typeof solveBatch>[0], worldSize, () => {});
  return { keys, ...(batch && { batch }) };
}

const BATCH_KEYS = ['train_batch_size', 'train_micro_batch_size_per_gpu', 'gradient_accumulation_steps'] as const;

function autoReport(path: string): ConfigKeyReport {
  return { path, value: 'auto', effect: 'honoured', text: 'filled in by the trainer from its own arguments' };
}

/** A config without the keys whose value is "auto", and the paths of these. */
function withoutAuto(value: unknown, path = ''): { value: unknown; auto: string[] } {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { value, auto: [] };
  const auto: string[] = [];
  const kept = Object.entries(value).flatMap(([key, inner]) => {
    const at = path === '' ? key : `${path}.${key}`;
    if (inner === 'auto') {
      auto.push(at);
      return [];
    }
    const nested = withoutAuto(inner, at);
    auto.push(...nested.auto);
    return [[key, nested.value] as const];
  });
  return { value: Object.fromEntries(kept), auto };
}
