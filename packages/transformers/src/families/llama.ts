import type { DecoderConfig, DecoderNames, LayerAttention } from '../decoder/config.js';
import type { RotaryConfig } from '../decoder/rotary.js';
import { completed, type Description } from './family.js';
import { type ConfigReader, GATED_ACTIVATIONS } from './reader.js';
import { ropeOf } from './rope.js';

/** The names of Llama's parts, which Mistral, Qwen and others took over. */
export const llamaNames: DecoderNames = {
  base: 'model',
  embed: 'embed_tokens',
  blocks: 'layers',
  attentionNorm: 'input_layernorm',
  attention: 'self_attn',
  qkv: ['q_proj', 'k_proj', 'v_proj'],
  attentionOut: 'o_proj',
  mlpNorm: 'post_attention_layernorm',
  mlp: 'mlp',
  mlpIn: ['gate_proj', 'up_proj'],
  mlpOut: 'down_proj',
  norm: 'norm',
  head: 'lm_head',
};

/** Llama 1 to 3 (arXiv:2407.21783): rotary positions, RMSNorm, SwiGLU, grouped heads. */
export function llamaFamily(read: ConfigReader): DecoderConfig {
  const bias = read.get('attention_bias', false);
  return completed(read, {
    ...likeLlama(read, { maxPositions: 2048 }),
    attentionBias: bias,
    attentionOutBias: bias,
    mlpBias: read.get('mlp_bias', false),
  });
}

export interface LlamaDefaults {
  readonly maxPositions: number;
  readonly normEps?: number;
  /** Key heads where the config does not say; default: as many as query heads. */
  readonly kvHeads?: number;
  readonly headDim?: number;
  readonly tieEmbeddings?: boolean;
  /** Default: the config's. */
  readonly rotary?: RotaryConfig;
  /** The field that names the activation, and its default. */
  readonly activationKey?: string;
  readonly activation?: string;
}

/** What a config.json of Llama's fields describes; families add what they do otherwise. Without biases. */
export function likeLlama(
  read: ConfigReader,
  defaults: LlamaDefaults,
): Description & { headDim: number; layerAttention: LayerAttention[] } {
  const dim = read.need<number>('hidden_size');
  const heads = read.need<number>('num_attention_heads');
  const layers = read.need<number>('num_hidden_layers');
  const headDim = read.nullable('head_dim', defaults.headDim ?? null) ?? dim / heads;
  const maxPositions = read.get('max_position_embeddings', defaults.maxPositions);
  const rotary = defaults.rotary ?? ropeOf(read, { headDim, maxPositions });
  return {
    vocabSize: read.need('vocab_size'),
    dim,
    layers,
    heads,
    kvHeads: read.nullable('num_key_value_heads', defaults.kvHeads ?? null) ?? heads,
    headDim,
    mlpDim: read.need('intermediate_size'),
    maxPositions,
    norm: 'rms',
    normEps: read.get('rms_norm_eps', defaults.normEps ?? 1e-6),
    positions: { kind: 'rotary' },
    layerAttention: Array.from({ length: layers }, () => ({ window: 0, rotary })),
    mlp: read.oneOf(defaults.activationKey ?? 'hidden_act', defaults.activation ?? 'silu', GATED_ACTIVATIONS),
    attentionBias: false,
    attentionOutBias: false,
    mlpBias: false,
    tieEmbeddings: read.get('tie_word_embeddings', defaults.tieEmbeddings ?? false),
    initStd: read.get('initializer_range', 0.02),
    dropout: { embedding: 0, attention: read.get('attention_dropout', 0), residual: 0 },
    names: llamaNames,
  };
}
