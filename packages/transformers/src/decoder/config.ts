import { DeepSpeedError, type LinearLayout } from '@deepspeed-ts/core';

/** How the parts of a decoder are called in checkpoints of a family. */
export interface DecoderNames {
  /** Prefix of everything but the head: 'transformer', 'model'. */
  readonly base: string;
  readonly embed: string;
  readonly positions?: string;
  readonly blocks: string;
  readonly attentionNorm: string;
  readonly attention: string;
  /** One name where q, k and v are stored packed, else three. */
  readonly qkv: readonly string[];
  readonly attentionOut: string;
  readonly mlpNorm: string;
  readonly mlp: string;
  /** Gate and up, or one. */
  readonly mlpIn: readonly string[];
  readonly mlpOut: string;
  readonly norm: string;
}

/** A decoder-only transformer with pre-normalisation, as data: families differ in these choices alone. */
export interface DecoderConfig {
  readonly vocabSize: number;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpDim: number;
  readonly maxPositions: number;
  readonly norm: 'layer' | 'rms';
  readonly normEps: number;
  readonly positions: 'learned' | { readonly rotaryTheta: number };
  readonly mlp: 'gelu' | 'gelu_tanh' | 'swiglu';
  readonly attentionBias: boolean;
  readonly attentionOutBias: boolean;
  readonly mlpBias: boolean;
  readonly layout: LinearLayout;
  readonly tieEmbeddings: boolean;
  readonly initStd: number;
  readonly dropout: { readonly embedding: number; readonly attention: number; readonly residual: number };
  readonly names: DecoderNames;
  /** The config.json that this came from or would be saved as. */
  readonly huggingFace: Readonly<Record<string, unknown>>;
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

const gpt2Names: DecoderNames = {
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
};

const llamaNames: DecoderNames = {
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
};

/** A GPT-2 of any size (Radford et al. 2019): learned positions, LayerNorm, GELU by tanh, head tied to the embedding. */
export function gpt2({ vocabSize, layers, heads, dim, context, dropout = 0, initStd = 0.02 }: Gpt2Options): DecoderConfig {
  return decoderConfig({
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
  });
}

/** Reads a Hugging Face config.json of a supported family. Throws for another `model_type`, listing what is supported. */
export function decoderConfig(raw: Readonly<Record<string, unknown>>): DecoderConfig {
  const type = raw.model_type;
  if (type === 'gpt2') return fromGpt2(raw);
  if (type === 'llama') return fromLlama(raw);
  const got = type === undefined ? 'no model_type' : `model_type '${String(type)}'`;
  throw new DeepSpeedError('ERR_MODEL_TYPE', `[decoderConfig] config.json has ${got}; supported: gpt2, llama`);
}

function fromGpt2(raw: Readonly<Record<string, unknown>>): DecoderConfig {
  const read = reader(raw);
  const activation = read<string>('activation_function', 'gelu_new');
  const dim = read<number>('n_embd');
  const heads = read<number>('n_head');
  if (activation !== 'gelu_new' && activation !== 'gelu_pytorch_tanh' && activation !== 'gelu')
    unsupported('activation_function', activation);
  for (const flag of ['scale_attn_by_inverse_layer_idx', 'add_cross_attention']) if (raw[flag] === true) unsupported(flag, true);
  if (raw.scale_attn_weights === false) unsupported('scale_attn_weights', false);
  return checked({
    vocabSize: read('vocab_size'),
    dim,
    layers: read('n_layer'),
    heads,
    kvHeads: heads,
    headDim: dim / heads,
    mlpDim: read<number | null>('n_inner', null) ?? 4 * dim,
    maxPositions: read('n_positions'),
    norm: 'layer',
    normEps: read('layer_norm_epsilon', 1e-5),
    positions: 'learned',
    mlp: activation === 'gelu' ? 'gelu' : 'gelu_tanh',
    attentionBias: true,
    attentionOutBias: true,
    mlpBias: true,
    layout: 'in_out',
    tieEmbeddings: read('tie_word_embeddings', true),
    initStd: read('initializer_range', 0.02),
    dropout: { embedding: read('embd_pdrop', 0.1), attention: read('attn_pdrop', 0.1), residual: read('resid_pdrop', 0.1) },
    names: gpt2Names,
    huggingFace: raw,
  });
}

function fromLlama(raw: Readonly<Record<string, unknown>>): DecoderConfig {
  const read = reader(raw);
  const dim = read<number>('hidden_size');
  const heads = read<number>('num_attention_heads');
  const rope = { rope_type: 'default', ...(raw.rope_scaling as object | null), ...(raw.rope_parameters as object | undefined) } as Record<
    string,
    unknown
  >;
  if (read('hidden_act', 'silu') !== 'silu') unsupported('hidden_act', raw.hidden_act);
  if (rope.rope_type !== 'default') unsupported('rope_type', rope.rope_type);
  return checked({
    vocabSize: read('vocab_size'),
    dim,
    layers: read('num_hidden_layers'),
    heads,
    kvHeads: read('num_key_value_heads', heads),
    headDim: read<number | null>('head_dim', null) ?? dim / heads,
    mlpDim: read('intermediate_size'),
    maxPositions: read('max_position_embeddings', 2048),
    norm: 'rms',
    normEps: read('rms_norm_eps', 1e-6),
    positions: { rotaryTheta: (rope.rope_theta as number | undefined) ?? read('rope_theta', 10000) },
    mlp: 'swiglu',
    attentionBias: read('attention_bias', false),
    attentionOutBias: read('attention_bias', false),
    mlpBias: read('mlp_bias', false),
    layout: 'out_in',
    tieEmbeddings: read('tie_word_embeddings', false),
    initStd: read('initializer_range', 0.02),
    dropout: { embedding: 0, attention: read('attention_dropout', 0), residual: 0 },
    names: llamaNames,
    huggingFace: raw,
  });
}

function reader(raw: Readonly<Record<string, unknown>>) {
  return <T>(key: string, fallback?: T): T => {
    const value = raw[key] ?? fallback;
    if (value === undefined)
      throw new DeepSpeedError('ERR_MODEL_CONFIG', `[decoderConfig] config.json of a ${String(raw.model_type)} has no '${key}'`);
    return value as T;
  };
}

function unsupported(key: string, value: unknown): never {
  throw new DeepSpeedError('ERR_MODEL_CONFIG', `[decoderConfig] ${key} = ${JSON.stringify(value)} is not supported yet`);
}

function checked(config: DecoderConfig): DecoderConfig {
  for (const key of ['vocabSize', 'dim', 'layers', 'heads', 'kvHeads', 'headDim', 'mlpDim', 'maxPositions'] as const) {
    if (!Number.isInteger(config[key]) || config[key] < 1) {
      throw new DeepSpeedError(
        'ERR_MODEL_CONFIG',
        `[decoderConfig] ${key} must be a positive integer, got ${config[key]} (dim ${config.dim} over ${config.heads} heads)`,
      );
    }
  }
  return config;
}
