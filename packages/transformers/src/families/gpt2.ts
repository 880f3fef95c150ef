import type { DecoderConfig, DecoderNames } from '../decoder/config.js';
import { completed } from './family.js';
import { ACTIVATIONS, ConfigReader } from './reader.js';

const names: DecoderNames = {
  base: 'transformer',
  embed: 'wte',
  positions: 'wpe',
  blocks: 'h',
  attentionNorm: 'ln_1',
  attention: 'attn',
  qkv: ['c_attn'],
  attentionOut: 'c_proj',
  mlpNorm: 'ln_2',
  mlp: 'mlp',
  mlpIn: ['c_fc'],
  mlpOut: 'c_proj',
  norm: 'ln_f',
  head: 'lm_head',
};

/** GPT-2 (Radford et al. 2019): learned positions, LayerNorm, GELU by tanh, weights stored [in, out], head tied to the embedding. */
export function gpt2Family(read: ConfigReader): DecoderConfig {
  for (const flag of ['scale_attn_by_inverse_layer_idx', 'add_cross_attention']) read.refuseIf(flag, true);
  read.refuseIf('scale_attn_weights', false);
  const dim = read.need<number>('n_embd', 'hidden_size');
  const layers = read.need<number>('n_layer', 'num_hidden_layers');
  const initStd = read.get('initializer_range', 0.02);
  return completed(read, {
    vocabSize: read.need('vocab_size'),
    dim,
    layers,
    heads: read.need('n_head', 'num_attention_heads'),
    mlpDim: read.get('n_inner', 4 * dim),
    maxPositions: read.get('n_positions', read.get('max_position_embeddings', 1024)),
    normEps: read.get('layer_norm_epsilon', 1e-5),
    positions: { kind: 'learned', offset: 0 },
    mlp: read.oneOf('activation_function', 'gelu_new', ACTIVATIONS),
    layout: 'in_out',
    tieEmbeddings: read.get('tie_word_embeddings', true),
    initStd,
    // So that the variance of the residual stream does not grow with depth.
    residualInitStd: initStd / Math.sqrt(2 * layers),
    dropout: { embedding: read.get('embd_pdrop', 0.1), attention: read.get('attn_pdrop', 0.1), residual: read.get('resid_pdrop', 0.1) },
    names,
  });
}

export interface Gpt2Options {
  readonly vocabSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly dim: number;
  readonly context: number;
  readonly dropout?: number;
  readonly initStd?: number;
}

/** A GPT-2 of any size. */
export function gpt2({ vocabSize, layers, heads, dim, context, dropout = 0, initStd = 0.02 }: Gpt2Options): DecoderConfig {
  return gpt2Family(
    new ConfigReader({
      architectures: ['GPT2LMHeadModel'],
      model_type: 'gpt2',
      activation_function: 'gelu_new',
      vocab_size: vocabSize,
      n_layer: layers,
      n_head: heads,
      n_embd: dim,
      n_positions: context,
      n_inner: null,
      layer_norm_epsilon: 1e-5,
      initializer_range: initStd,
      embd_pdrop: dropout,
      attn_pdrop: dropout,
      resid_pdrop: dropout,
      tie_word_embeddings: true,
    }),
  );
}
