import type { RotaryConfig } from './rotary.js';

/**
 * How rotary frequencies are changed for sequences longer than those of pretraining.
 * - linear: all divided by a factor (Chen et al., arXiv:2306.15595).
 * - dynamic: a base that grows with the sequence beyond `maxPositions` ("NTK-aware").
 * - yarn: high frequencies stay, low ones are divided, with a ramp between; scores are sharpened by `attentionFactor` (Peng et al.,
 *   arXiv:2309.00071).
 * - llama3: likewise by wavelength, without the sharpening (Llama 3.1).
 * - longrope: a divisor for each frequency, of one list for sequences up to `originalPositions` and another beyond (Ding et al.,
 *   arXiv:2402.13753).
 */
export type RopeScaling =
  | { readonly kind: 'none' }
  | { readonly kind: 'linear'; readonly factor: number }
  | { readonly kind: 'dynamic'; readonly factor: number }
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      readonly attentionFactor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Whether the ends of the ramp are whole numbers. */
      readonly truncate: boolean;
      readonly originalPositions: number;
    }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFactor: number;
      readonly highFactor: number;
      readonly originalPositions: number;
    }
  | {
      readonly kind: 'longrope';
      readonly shortFactors: readonly number[];
      readonly longFactors: readonly number[];
      readonly attentionFactor: number;
      readonly originalPositions: number;
    };

/** Angles per position, in radians, and the factor of cos and sin. */
export interface RotaryFrequencies {
  /** [dim / 2] */
  readonly frequencies: Float32Array;
  readonly factor: number;
}

const { fround } = Math;

/** Frequencies depend on a sequence's length by this number alone. */
export function spanOf({ scaling, maxPositions }: RotaryConfig, length: number): number {
  if (scaling.kind === 'dynamic') return Math.max(length, maxPositions);
  return scaling.kind === 'longrope' ? Number(length > scaling.originalPositions) : 0;
}

/** For sequences of `length` positions, rounded to f32 where the reference implementations round. */
export function rotaryFrequencies(config: RotaryConfig, length: number): RotaryFrequencies {
  const { theta, dim, scaling } = config;
  const plain = () => inverses(theta, dim);
  switch (scaling.kind) {
    case 'none':
      return { frequencies: plain(), factor: 1 };
    case 'linear':
      return { frequencies: plain().map((f) => f / scaling.factor), factor: 1 };
    case 'dynamic': {
      const stretch = (scaling.factor * spanOf(config, length)) / config.maxPositions - (scaling.factor - 1);
      return { frequencies: inverses(theta * stretch ** (dim / (dim - 2)), dim), factor: 1 };
    }
    case 'llama3':
      return { frequencies: plain().map((f) => llama3(f, scaling)), factor: 1 };
    case 'yarn':
      return { frequencies: yarn(theta, dim, scaling), factor: scaling.attentionFactor };
    case 'longrope': {
      const divisors = spanOf(config, length) ? scaling.longFactors : scaling.shortFactors;
      const frequencies = powers(theta, dim).map((power, i) => 1 / fround(fround(divisors[i]!) * power));
      return { frequencies, factor: scaling.attentionFactor };
    }
  }
}

/** theta^(2i / dim). */
function powers(theta: number, dim: number): Float32Array {
  return Float32Array.from({ length: dim / 2 }, (_, i) => theta ** fround((2 * i) / dim));
}

function inverses(theta: number, dim: number): Float32Array {
  return powers(theta, dim).map((power) => 1 / power);
}

type Scaling<Kind extends RopeScaling['kind']> = Extract<RopeScaling, { kind: Kind }>;

function llama3(frequency: number, { factor, lowFactor, highFactor, originalPositions }: Scaling<'llama3'>): number {
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength > originalPositions / lowFactor) return frequency / factor;
  if (wavelength < originalPositions / highFactor) return frequency;
  const smooth = (originalPositions / wavelength - lowFactor) / (highFactor - lowFactor);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

function yarn(theta: number, dim: number, scaling: Scaling<'yarn'>): Float32Array {
  const { factor, betaFast, betaSlow, truncate, originalPositions } = scaling;
  /** The index of the frequency that turns so many times in `originalPositions`. */
  const indexOf = (turns: number) => (dim * Math.log(originalPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  let [low, high] = [indexOf(betaFast), indexOf(betaSlow)];
  if (truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
  [low, high] = [Math.max(low, 0), Math.min(high, dim - 1)];
  if (low === high) high += 0.001;
  return powers(theta, dim).map((power, i) => {
    const divided = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return (1 / fround(factor * power)) * divided + (1 / power) * (1 - divided);
  });
}
