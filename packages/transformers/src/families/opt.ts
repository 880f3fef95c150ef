import type { DecoderConfig } from '../decoder/config.js';
import { completed } from './family.js';
import { ACTIVATIONS, type ConfigReader } from './reader.js';

/**
 * OPT (Zhang et al., arXiv:2205.01068): GPT-2's shape with ReLU and positions from row 2 on. The 350M model has its norms after the sums, and
 * embeddings of a smaller width.
 */
export function optFamily(read: ConfigReader): DecoderConfig {
  read.refuseIf('layer_norm_elementwise_affine', false);
  if (read.get('layerdrop', 0) !== 0) read.refuse('layerdrop');
  const dim = read.need<number>('hidden_size');
  const embedDim = read.get('word_embed_proj_dim', dim);
  const before = read.get('do_layer_norm_before', true);
  const bias = read.get('enable_bias', true);
  return completed(read, {
    vocabSize: read.need('vocab_size'),
    dim,
    embedDim,
    layers: read.need('num_hidden_layers'),
    heads: read.need('num_attention_heads'),
    mlpDim: read.need('ffn_dim'),
    maxPositions: read.get('max_position_embeddings', 2048),
    normEps: 1e-5,
    block: before ? 'pre' : 'post',
    positions: { kind: 'learned', offset: 2 },
    attentionBias: bias,
    attentionOutBias: bias,
    mlp: read.oneOf('activation_function', 'relu', ACTIVATIONS),
    mlpBias: bias,
    tieEmbeddings: read.get('tie_word_embeddings', true),
    initStd: read.get('init_std', 0.02),
    dropout: { embedding: 0, attention: read.get('attention_dropout', 0), residual: read.get('dropout', 0.1) },
    names: {
      base: 'model.decoder',
      embed: 'embed_tokens',
      positions: 'embed_positions',
      ...(embedDim !== dim && { projectIn: 'project_in', projectOut: 'project_out' }),
      blocks: 'layers',
      attentionNorm: 'self_attn_layer_norm',
      attention: 'self_attn',
      qkv: ['q_proj', 'k_proj', 'v_proj'],
      attentionOut: 'out_proj',
      mlpNorm: 'final_layer_norm',
      mlp: '',
      mlpIn: ['fc1'],
      mlpOut: 'fc2',
      ...(before && !read.get('_remove_final_layer_norm', false) && { norm: 'final_layer_norm' }),
      head: 'lm_head',
    },
  });
}
