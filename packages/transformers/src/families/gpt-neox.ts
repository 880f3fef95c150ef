import type { DecoderConfig } from '../decoder/config.js';
import { completed } from './family.js';
import { ACTIVATIONS, type ConfigReader } from './reader.js';
import { ropeOf } from './rope.js';

/**
 * GPT-NeoX and Pythia (arXiv:2204.06745): attention and the feed-forward part beside each other, a quarter of each head turns, and q, k and v
 * in one map, head by head.
 */
export function gptNeoxFamily(read: ConfigReader): DecoderConfig {
  const dim = read.need<number>('hidden_size');
  const heads = read.need<number>('num_attention_heads');
  const layers = read.need<number>('num_hidden_layers');
  const maxPositions = read.get('max_position_embeddings', 2048);
  const bias = read.get('attention_bias', true);
  const dropout = read.get('hidden_dropout', 0);
  const rope = { headDim: dim / heads, maxPositions, partial: 0.25, thetaKey: 'rotary_emb_base', partialKey: 'rotary_pct' };
  const rotary = ropeOf(read, rope);
  return completed(read, {
    vocabSize: read.need('vocab_size'),
    dim,
    layers,
    heads,
    mlpDim: read.need('intermediate_size'),
    maxPositions,
    normEps: read.get('layer_norm_eps', 1e-5),
    block: read.get('use_parallel_residual', true) ? 'parallel' : 'pre',
    positions: { kind: 'rotary' },
    layerAttention: Array.from({ length: layers }, () => ({ window: 0, rotary })),
    qkvByHead: true,
    attentionBias: bias,
    attentionOutBias: bias,
    mlp: read.oneOf('hidden_act', 'gelu', ACTIVATIONS),
    tieEmbeddings: read.get('tie_word_embeddings', false),
    initStd: read.get('initializer_range', 0.02),
    dropout: { embedding: dropout, attention: read.get('attention_dropout', 0), residual: dropout },
    names: {
      base: 'gpt_neox',
      embed: 'embed_in',
      blocks: 'layers',
      attentionNorm: 'input_layernorm',
      attention: 'attention',
      qkv: ['query_key_value'],
      attentionOut: 'dense',
      mlpNorm: 'post_attention_layernorm',
      mlp: 'mlp',
      mlpIn: ['dense_h_to_4h'],
      mlpOut: 'dense_4h_to_h',
      norm: 'final_layer_norm',
      head: 'embed_out',
    },
  });
}
