import { DeepSpeedError } from '@deepspeed-ts/core';
import type { DecoderConfig } from '../decoder/config.js';
import { bloomFamily } from './bloom.js';
import type { Family } from './family.js';
import { gemma2Family, gemma3Family } from './gemma.js';
import { gptNeoxFamily } from './gpt-neox.js';
import { gpt2Family } from './gpt2.js';
import { llamaFamily } from './llama.js';
import { mistralFamily } from './mistral.js';
import { mixtralFamily } from './mixtral.js';
import { optFamily } from './opt.js';
import { phi3Family } from './phi3.js';
import { qwen2Family, qwen3Family } from './qwen.js';
import { ConfigReader, type RawConfig } from './reader.js';

/** By `model_type`. */
const families: Readonly<Record<string, Family>> = {
  bloom: bloomFamily,
  gemma2: gemma2Family,
  gemma3_text: gemma3Family,
  gpt2: gpt2Family,
  gpt_neox: gptNeoxFamily,
  llama: llamaFamily,
  mistral: mistralFamily,
  mixtral: mixtralFamily,
  opt: optFamily,
  phi3: phi3Family,
  qwen2: qwen2Family,
  qwen3: qwen3Family,
};

/** Values of `model_type` that {@link decoderConfig} reads. */
export const modelTypes: readonly string[] = Object.keys(families);

/** Reads a Hugging Face config.json of a supported family. Throws for another `model_type`, listing what is supported. */
export function decoderConfig(raw: RawConfig): DecoderConfig {
  const type = raw.model_type;
  if (typeof type === 'string' && Object.hasOwn(families, type)) return families[type]!(new ConfigReader(raw));
  const got = type === undefined ? 'no model_type' : `model_type '${String(type)}'`;
  throw new DeepSpeedError('ERR_MODEL_TYPE', `[decoderConfig] config.json has ${got}; supported: ${modelTypes.join(', ')}`);
}
