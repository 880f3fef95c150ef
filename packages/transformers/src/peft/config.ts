import { PeftError } from './errors.js';

/** Names of modules, or the last parts of them; or a pattern of whole names; or all linear layers but the head. */
export type TargetModules = 'all-linear' | readonly string[] | RegExp;

/** Which layers get adapters, and of what kind: LoRA (Hu et al., arXiv:2106.09685) with the names and defaults of PEFT. */
export interface LoraConfig {
  /** Rank of the updates; default 8. */
  readonly r?: number;
  /** An update is multiplied with alpha / r; default 8. */
  readonly loraAlpha?: number;
  /** Probability with which elements of an adapter's input are dropped in training; default 0. */
  readonly loraDropout?: number;
  /** Default 'all-linear', which the QLoRA paper found to be what matters most. */
  readonly targetModules?: TargetModules;
  /** Of the target modules, those that get none. */
  readonly excludeModules?: readonly string[] | RegExp;
  /** Multiply with alpha / sqrt(r) instead (Kalajdzievski, arXiv:2312.03732); default false. */
  readonly useRslora?: boolean;
  /** Modules that are trained whole and saved beside the adapters, such as 'embed_tokens'. */
  readonly modulesToSave?: readonly string[];
  /** Numbers of the blocks that get adapters; default all. */
  readonly layersToTransform?: number | readonly number[];
  /** What the list of blocks is called, where a name has several numbers. */
  readonly layersPattern?: string | readonly string[];
  /** Ranks and alphas of single modules, by their names or patterns of them. */
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  /** true: A uniform in ±1/sqrt(inputs), B zero, so that training begins with the model as it is. 'gaussian': A normal with deviation 1/r. */
  readonly initLoraWeights?: true | 'gaussian';
}

/** With all defaults filled in. */
export interface FullLoraConfig {
  readonly r: number;
  readonly loraAlpha: number;
  readonly loraDropout: number;
  readonly targetModules: TargetModules;
  readonly excludeModules: readonly string[] | RegExp | undefined;
  readonly useRslora: boolean;
  readonly modulesToSave: readonly string[];
  readonly layersToTransform: readonly number[] | undefined;
  readonly layersPattern: readonly string[];
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  readonly initLoraWeights: true | 'gaussian';
}

/** @throws PeftError naming the setting that is out of range */
export function fullConfig(config: LoraConfig): FullLoraConfig {
  const full: FullLoraConfig = {
    r: config.r ?? 8,
    loraAlpha: config.loraAlpha ?? 8,
    loraDropout: config.loraDropout ?? 0,
    targetModules: config.targetModules ?? 'all-linear',
    excludeModules: config.excludeModules,
    useRslora: config.useRslora ?? false,
    modulesToSave: config.modulesToSave ?? [],
    layersToTransform: config.layersToTransform === undefined ? undefined : listOf(config.layersToTransform),
    layersPattern: config.layersPattern === undefined ? [] : listOf(config.layersPattern),
    rankPattern: config.rankPattern ?? {},
    alphaPattern: config.alphaPattern ?? {},
    initLoraWeights: config.initLoraWeights ?? true,
  };
  for (const [name, rank] of [['r', full.r] as const, ...Object.entries(full.rankPattern)]) {
    if (!Number.isInteger(rank) || rank < 1) throw wrong(name, 'a positive integer', rank);
  }
  if (!Number.isFinite(full.loraAlpha)) throw wrong('loraAlpha', 'a number', full.loraAlpha);
  if (!(full.loraDropout >= 0 && full.loraDropout < 1)) throw wrong('loraDropout', 'a probability below 1', full.loraDropout);
  if (full.initLoraWeights !== true && full.initLoraWeights !== 'gaussian')
    throw wrong('initLoraWeights', "true or 'gaussian'", full.initLoraWeights);
  return full;
}

/** Rank and scale of a module's adapter. */
export function adapterOf(config: FullLoraConfig, module: string): { rank: number; scale: number } {
  const rank = patternValue(config.rankPattern, module) ?? config.r;
  const alpha = patternValue(config.alphaPattern, module) ?? config.loraAlpha;
  return { rank, scale: alpha / (config.useRslora ? Math.sqrt(rank) : rank) };
}

/** Keys are names, ends of names after a dot, or patterns of either. */
function patternValue(pattern: Readonly<Record<string, number>>, module: string): number | undefined {
  return Object.entries(pattern).find(([key]) => new RegExp(`^(.*\\.)?(${key})$`).test(module))?.[1];
}

function wrong(name: string, expected: string, got: unknown): PeftError {
  return new PeftError('ERR_PEFT_CONFIG', `${name}: expected ${expected}, got ${JSON.stringify(got)}`);
}

function listOf<T>(value: T | readonly T[]): readonly T[] {
  return Array.isArray(value) ? value : [value as T];
}
