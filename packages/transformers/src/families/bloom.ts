import type { DecoderConfig } from '../decoder/config.js';
import { completed } from './family.js';
import type { ConfigReader } from './reader.js';

/** BLOOM (arXiv:2211.05100): ALiBi in place of positions, a norm of the embeddings, and q, k and v in one map, head by head. */
export function bloomFamily(read: ConfigReader): DecoderConfig {
  const dim = read.need<number>('hidden_size', 'n_embed');
  return completed(read, {
    vocabSize: read.need('vocab_size'),
    dim,
    layers: read.need('n_layer', 'num_hidden_layers'),
    heads: read.need('n_head', 'num_attention_heads'),
    mlpDim: 4 * dim,
    // What the published models were trained on; ALiBi goes on from there.
    maxPositions: read.get('seq_length', 2048),
    normEps: read.get('layer_norm_epsilon', 1e-5),
    residualFromNorm: read.get('apply_residual_connection_post_layernorm', false),
    positions: { kind: 'alibi' },
    qkvByHead: true,
    mlp: 'gelu_tanh',
    tieEmbeddings: read.get('tie_word_embeddings', true),
    initStd: read.get('initializer_range', 0.02),
    dropout: { embedding: 0, attention: read.get('attention_dropout', 0), residual: read.get('hidden_dropout', 0) },
    names: {
      base: 'transformer',
      embed: 'word_embeddings',
      embedNorm: 'word_embeddings_layernorm',
      blocks: 'h',
      attentionNorm: 'input_layernorm',
      attention: 'self_attention',
      qkv: ['query_key_value'],
      attentionOut: 'dense',
      mlpNorm: 'post_attention_layernorm',
      mlp: 'mlp',
      mlpIn: ['dense_h_to_4h'],
      mlpOut: 'dense_4h_to_h',
      norm: 'ln_f',
      head: 'lm_head',
    },
  });
}
