import { join } from 'node:path';
import {
  DeepSpeedError,
  Device,
  type FloatDType,
  isFloat,
  openBackend,
  QUANTIZED_FORMATS,
  type QuantizedFormat,
  quantizeWeights,
} from '@deepspeed-ts/core';
import { modelDirectory } from '../hub/resolve.js';
import type { HubOptions } from '../hub/settings.js';
import { type JsonObject, readJsonFile } from './json-file.js';
import { assertMatched, type MatchOptions, matchWeights } from './match.js';
import { readModelConfig } from './model-config.js';
import { PretrainedModel } from './pretrained-model.js';
import { PretrainedWeights } from './pretrained-weights.js';
import { findWeights, type StoredTensor } from './stored-weights.js';

export interface ModelOptions {
  /** Of weights on a device. 'auto', the default, is what config.json says, else what the files hold. */
  readonly dtype?: 'auto' | FloatDType;
  /** Load it there at once, ready to generate: a device, or the name of a registered backend ('cpu'). Default: `initialize` loads it. */
  readonly device?: Device | string;
  /** Entries of config.json to change. */
  readonly config?: JsonObject;
  /** Of initial values, where there are no weights. Default 0. */
  readonly seed?: number;
  /**
   * Freeze the matrices of the blocks and keep them as codes, a quarter ('nf4') or half ('int8') of the bytes of bf16, to train adapters on; see
   * `quantizeWeights`. Weights become codes as they are read, a few at a time. Default: weights stay as they are.
   */
  readonly quantization?: QuantizedFormat;
}

export interface FromPretrainedOptions extends ModelOptions, MatchOptions, HubOptions {}

/** Language models by what their config.json says they are. */
export const AutoModelForCausalLM = {
  /**
   * The model of a Hugging Face directory, as `transformers` saves it and the Hub has it: config.json and weights in safetensors or, of older
   * models, pickles. A path to one, or the id of a model on the Hub, which is downloaded into the cache. Only headers of the weights are read,
   * unless `device` says to load them.
   *
   * @throws PretrainedError where a file is missing or damaged, or weights do not fit; HubError where the Hub does not give it; DeepSpeedError
   * for a family that is not supported
   */
  async fromPretrained(pathOrId: string, options: FromPretrainedOptions = {}): Promise<PretrainedModel> {
    const directory = await modelDirectory(pathOrId, 'model', options);
    const raw = { ...(await readModelConfig(directory)), ...options.config };
    const files = await findWeights(directory);
    const tensors = files.flatMap((file) => file.tensors);
    const dtype = dtypeOf(options.dtype, raw, tensors);
    const model = new PretrainedModel({ raw, generationConfig: await generationConfigOf(directory, raw), dtype, directory });
    const matched = matchWeights(model, tensors);
    assertMatched(matched, directory, options);
    model.report = matched.report;
    model.weights = new PretrainedWeights(matched.tensors);
    return onDevice(model, options);
  },

  /** A new model of a config.json's kind and size. */
  async fromConfig(raw: JsonObject, options: ModelOptions = {}): Promise<PretrainedModel> {
    const config = { ...raw, ...options.config };
    const model = new PretrainedModel({ raw: config, generationConfig: tokensOf(config), dtype: dtypeOf(options.dtype, config, []) });
    return onDevice(model, options);
  },
};

async function onDevice(model: PretrainedModel, { device, seed = 0, quantization }: ModelOptions): Promise<PretrainedModel> {
  if (quantization !== undefined) {
    if (!QUANTIZED_FORMATS.includes(quantization)) {
      const expected = QUANTIZED_FORMATS.map((format) => `'${format}'`).join(' or ');
      throw new DeepSpeedError('ERR_DTYPE', `[fromPretrained] quantization: expected ${expected}, got '${quantization as string}'`);
    }
    quantizeWeights(model, quantization);
  }
  if (device === undefined) return model;
  return model.load(typeof device === 'string' ? new Device(openBackend(device)) : device, { seed });
}

const names: Readonly<Record<string, FloatDType>> = { float32: 'f32', float: 'f32', float16: 'f16', half: 'f16', bfloat16: 'bf16' };

function dtypeOf(asked: ModelOptions['dtype'] = 'auto', raw: JsonObject, tensors: readonly StoredTensor[]): FloatDType {
  if (asked !== 'auto') {
    if (asked !== 'f32' && asked !== 'bf16' && asked !== 'f16')
      throw new DeepSpeedError('ERR_DTYPE', `[fromPretrained] dtype: expected 'auto', 'f32', 'bf16' or 'f16', got '${asked as string}'`);
    return asked;
  }
  const said = raw.dtype ?? raw.torch_dtype;
  const known = typeof said === 'string' ? names[said.replace(/^torch\./, '')] : undefined;
  return known ?? tensors.map(({ dtype }) => dtype).find(isFloat) ?? 'f32';
}

async function generationConfigOf(directory: string, raw: JsonObject): Promise<JsonObject> {
  return (await readJsonFile(join(directory, 'generation_config.json'))) ?? tokensOf(raw);
}

/** What of a config.json concerns generation. */
function tokensOf(raw: JsonObject): JsonObject {
  const keys = ['bos_token_id', 'eos_token_id', 'pad_token_id'];
  return Object.fromEntries(keys.filter((key) => raw[key] !== undefined).map((key) => [key, raw[key]]));
}
