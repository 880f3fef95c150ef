import type { JsonObject } from '../pretrained/json-file.js';
import { type FullLoraConfig, fullConfig, type LoraConfig } from './config.js';
import { PeftError } from './errors.js';

/** What an adapter_config.json says beside the config itself. */
export interface ConfigFileFacts {
  /** Names of the modules that have adapters, as they are to be matched. */
  readonly targetModules: readonly string[] | string;
  /** Whether weights lie as [inputs, outputs], GPT-2's way. */
  readonly fanInFanOut: boolean;
  /** Directory or name of the model that the adapters are for. */
  readonly baseModel: string | undefined;
}

/** adapter_config.json as PEFT reads it. */
export function configFile(config: FullLoraConfig, { targetModules, fanInFanOut, baseModel }: ConfigFileFacts): JsonObject {
  const { excludeModules, modulesToSave, layersPattern, layersToTransform } = config;
  return {
    alpha_pattern: config.alphaPattern,
    base_model_name_or_path: baseModel ?? null,
    bias: 'none',
    exclude_modules: excludeModules === undefined ? null : excludeModules instanceof RegExp ? excludeModules.source : excludeModules,
    fan_in_fan_out: fanInFanOut,
    inference_mode: true,
    init_lora_weights: config.initLoraWeights,
    layers_pattern: layersPattern.length > 0 ? layersPattern : null,
    layers_to_transform: layersToTransform ?? null,
    lora_alpha: config.loraAlpha,
    lora_dropout: config.loraDropout,
    modules_to_save: modulesToSave.length > 0 ? modulesToSave : null,
    peft_type: 'LORA',
    r: config.r,
    rank_pattern: config.rankPattern,
    target_modules: targetModules,
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: config.useRslora,
  };
}

/** Settings that change what an adapter computes, and what they must be here. Others may be unset, whoever wrote them. */
const supported: Readonly<Record<string, readonly unknown[]>> = {
  peft_type: ['LORA'],
  bias: ['none'],
  // The others begin with another base model than the files of the model have.
  init_lora_weights: [true, false, 'gaussian', 'eva', 'orthogonal'],
};

/** Settings of how adapters were made or run, which what they compute does not depend on. */
const harmless = new Set([
  ...['auto_mapping', 'base_model_name_or_path', 'corda_config', 'ensure_weight_tying', 'eva_config', 'fan_in_fan_out', 'inference_mode'],
  ...[
    'loftq_config',
    'lora_ga_config',
    'megatron_config',
    'megatron_core',
    'peft_version',
    'qalora_group_size',
    'revision',
    'runtime_config',
  ],
  'task_type',
]);

const read = new Set([
  ...['alpha_pattern', 'exclude_modules', 'layers_pattern', 'layers_to_transform', 'lora_alpha', 'lora_dropout', 'modules_to_save', 'r'],
  ...['rank_pattern', 'target_modules', 'use_rslora'],
]);

/**
 * The config of an adapter_config.json.
 *
 * @throws PeftError naming what it asks for and does not exist here, such as DoRA
 */
export function parseConfigFile(raw: JsonObject, path: string): FullLoraConfig {
  const refused = Object.entries(raw).flatMap(([key, value]) => {
    if (key in supported) return supported[key]!.includes(value) ? [] : [`${key} = ${JSON.stringify(value)}`];
    return read.has(key) || harmless.has(key) || isUnset(value) ? [] : [`${key} = ${JSON.stringify(value)}`];
  });
  if (refused.length > 0)
    throw new PeftError('ERR_PEFT_CONFIG', `${path} asks for what is not supported: ${refused.join(', ')}; LoRA with bias 'none' is`);
  const { target_modules: targets, r, lora_alpha: alpha } = raw;
  if (targets === null || targets === undefined || r === undefined || alpha === undefined)
    throw new PeftError('ERR_PEFT_CONFIG', `${path}: expected r, lora_alpha and target_modules, got ${Object.keys(raw).join(', ')}`);
  const config = {
    r,
    loraAlpha: alpha,
    loraDropout: raw.lora_dropout,
    targetModules: targets === 'all-linear' ? targets : matcherOf(targets),
    excludeModules: raw.exclude_modules == null ? undefined : matcherOf(raw.exclude_modules),
    useRslora: raw.use_rslora,
    modulesToSave: raw.modules_to_save ?? undefined,
    layersToTransform: raw.layers_to_transform ?? undefined,
    layersPattern: raw.layers_pattern ?? undefined,
    rankPattern: raw.rank_pattern ?? undefined,
    alphaPattern: raw.alpha_pattern ?? undefined,
    initLoraWeights: raw.init_lora_weights === 'gaussian' ? 'gaussian' : true,
  };
  return fullConfig(config as LoraConfig);
}

function matcherOf(value: unknown): readonly string[] | RegExp {
  return typeof value === 'string' ? new RegExp(value) : (value as readonly string[]);
}

/** What says that there is no such thing. */
function isUnset(value: unknown): boolean {
  return value === null || value === false || (typeof value === 'object' && Object.keys(value as object).length === 0);
}
