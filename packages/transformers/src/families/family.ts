import { DeepSpeedError } from '@deepspeed-ts/core';
import type { DecoderConfig } from '../decoder/config.js';
import type { ConfigReader } from './reader.js';

/** Reads config.json files of one `model_type`. */
export type Family = (read: ConfigReader) => DecoderConfig;

type Optional =
  | 'embedDim'
  | 'kvHeads'
  | 'headDim'
  | 'norm'
  | 'block'
  | 'residualFromNorm'
  | 'layerAttention'
  | 'attentionScale'
  | 'attentionSoftcap'
  | 'qkvByHead'
  | 'attentionBias'
  | 'attentionOutBias'
  | 'mlpBias'
  | 'embedScale'
  | 'logitSoftcap'
  | 'layout'
  | 'residualInitStd'
  | 'huggingFace';

/** What a family says: everything that has no default. */
export type Description = Omit<DecoderConfig, Optional> & Partial<Pick<DecoderConfig, Optional>>;

/** A config with what most families do where the description says nothing. Throws for sizes that make no model. */
export function completed(read: ConfigReader, description: Description): DecoderConfig {
  const { dim, heads, layers, initStd } = description;
  const headDim = description.headDim ?? dim / heads;
  const config: DecoderConfig = {
    embedDim: dim,
    kvHeads: heads,
    headDim,
    norm: 'layer',
    block: 'pre',
    residualFromNorm: false,
    layerAttention: Array.from({ length: layers }, () => ({ window: 0 })),
    attentionScale: 1 / Math.sqrt(headDim),
    attentionSoftcap: 0,
    qkvByHead: false,
    attentionBias: true,
    attentionOutBias: true,
    mlpBias: true,
    embedScale: 1,
    logitSoftcap: 0,
    layout: 'out_in',
    residualInitStd: initStd,
    huggingFace: read.raw,
    ...description,
  };
  for (const key of ['vocabSize', 'dim', 'embedDim', 'layers', 'heads', 'kvHeads', 'headDim', 'mlpDim', 'maxPositions'] as const) {
    if (!Number.isInteger(config[key]) || config[key] < 1) {
      throw new DeepSpeedError(
        'ERR_MODEL_CONFIG',
        `[decoderConfig] ${key} must be a positive integer, got ${config[key]} (dim ${dim} over ${heads} heads)`,
      );
    }
  }
  const { experts } = config;
  if (
    experts &&
    !(Number.isInteger(experts.count) && experts.count <= MOST_EXPERTS && experts.perToken >= 1 && experts.perToken <= experts.count)
  ) {
    throw new DeepSpeedError(
      'ERR_MODEL_CONFIG',
      `[decoderConfig] expected at most ${MOST_EXPERTS} experts and at least one of them for each token, got ${experts.perToken} of ${experts.count}`,
    );
  }
  return config;
}

/** What kernels take. */
const MOST_EXPERTS = 128;
