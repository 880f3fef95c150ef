import type { RopeScaling } from '../decoder/rope-scaling.js';
import type { RotaryConfig } from '../decoder/rotary.js';
import type { ConfigReader, RawConfig } from './reader.js';

export interface RopeDefaults {
  readonly headDim: number;
  readonly maxPositions: number;
  readonly theta?: number;
  /** The fraction of a head that turns, in families where a config may say so. */
  readonly partial?: number;
  readonly thetaKey?: string;
  readonly partialKey?: string;
  /** Positions of pretraining where the config does not say; default: all. */
  readonly originalPositions?: number;
  /** Types that mean longrope in this family. */
  readonly longropeNames?: readonly string[];
}

/**
 * Rotary positions of a config.json: `rope_parameters` as transformers 5 writes them, or `rope_theta` and `rope_scaling` as before it.
 * `parameters` stands in for those, where a config has several.
 */
export function ropeOf(read: ConfigReader, defaults: RopeDefaults, parameters = parametersOf(read)): RotaryConfig {
  const { headDim, maxPositions, thetaKey = 'rope_theta', partialKey = 'partial_rotary_factor' } = defaults;
  const theta = (parameters.rope_theta ?? read.raw[thetaKey] ?? defaults.theta ?? 10_000) as number;
  const whole = defaults.partial === undefined;
  const fraction = whole ? 1 : ((parameters.partial_rotary_factor ?? read.raw[partialKey] ?? defaults.partial) as number);
  return { theta, dim: Math.floor(headDim * fraction), maxPositions, scaling: scalingOf(read, parameters, defaults) };
}

function parametersOf({ raw }: ConfigReader): RawConfig {
  return (raw.rope_scaling || raw.rope_parameters || {}) as RawConfig;
}

function scalingOf(
  read: ConfigReader,
  parameters: RawConfig,
  { maxPositions, originalPositions, longropeNames }: RopeDefaults,
): RopeScaling {
  const number = (key: string): number => (typeof parameters[key] === 'number' ? parameters[key] : refuse(read, parameters, key));
  const list = (key: string): readonly number[] => (Array.isArray(parameters[key]) ? parameters[key] : refuse(read, parameters, key));
  // A field of the config itself comes first: Phi-3 keeps it there.
  const original = (read.raw.original_max_position_embeddings ??
    originalPositions ??
    parameters.original_max_position_embeddings ??
    maxPositions) as number;
  const name = (parameters.rope_type ?? parameters.type ?? 'default') as string;
  const type = longropeNames?.includes(name) ? 'longrope' : name;
  switch (type) {
    case 'default':
      return { kind: 'none' };
    case 'linear':
    case 'dynamic':
      return { kind: type, factor: number('factor') };
    case 'llama3':
      return {
        kind: type,
        factor: number('factor'),
        lowFactor: number('low_freq_factor'),
        highFactor: number('high_freq_factor'),
        originalPositions: original,
      };
    case 'yarn': {
      const factor = (parameters.factor as number | undefined) ?? maxPositions / original;
      return {
        kind: type,
        factor,
        attentionFactor: (parameters.attention_factor as number | undefined) ?? yarnAttentionFactor(factor, parameters),
        betaFast: (parameters.beta_fast as number | undefined) || 32,
        betaSlow: (parameters.beta_slow as number | undefined) || 1,
        truncate: (parameters.truncate as boolean | undefined) ?? true,
        originalPositions: original,
      };
    }
    case 'longrope': {
      const factor = (parameters.factor as number | undefined) ?? maxPositions / original;
      const grown = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
      return {
        kind: type,
        shortFactors: list('short_factor'),
        longFactors: list('long_factor'),
        attentionFactor: (parameters.attention_factor as number | undefined) ?? grown,
        originalPositions: original,
      };
    }
    default:
      return refuse(read, parameters, 'rope_type');
  }
}

/** 0.1 ln(factor) + 1 (arXiv:2309.00071), in DeepSeek's configs a quotient of two of that form. */
function yarnAttentionFactor(factor: number, { mscale, mscale_all_dim: all }: RawConfig): number {
  const grown = (weight = 1) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  return mscale && all ? grown(mscale as number) / grown(all as number) : grown();
}

function refuse(read: ConfigReader, parameters: RawConfig, key: string): never {
  const field = read.raw.rope_scaling ? 'rope_scaling' : 'rope_parameters';
  return read.refuse(field, `: ${key} = ${JSON.stringify(parameters[key])}; types are default, linear, dynamic, yarn, llama3 and longrope`);
}
