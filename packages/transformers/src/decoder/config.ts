import type { LinearLayout, MlpActivation } from '@deepspeed-ts/core';
import type { RotaryConfig } from './rotary.js';

/** How the parts of a decoder are called in checkpoints of a family. A part without a name is not there. */
export interface DecoderNames {
  /** Prefix of everything but the head: 'transformer', 'model'. */
  readonly base: string;
  readonly embed: string;
  /** The table of learned positions. */
  readonly positions?: string;
  /** A norm of what the embedding gives. */
  readonly embedNorm?: string;
  /** Maps between embeddings and blocks of another width. */
  readonly projectIn?: string;
  readonly projectOut?: string;
  readonly blocks: string;
  readonly attentionNorm: string;
  readonly attention: string;
  /** One name where q, k and v are stored packed, else three. */
  readonly qkv: readonly string[];
  /** Norms of each query and each key head. */
  readonly qNorm?: string;
  readonly kNorm?: string;
  readonly attentionOut: string;
  /** Norms of what attention and the feed-forward part give, before it is added to the residual stream. */
  readonly attentionPostNorm?: string;
  readonly mlpPostNorm?: string;
  readonly mlpNorm: string;
  /** Empty: the maps of the feed-forward part lie directly in the block. */
  readonly mlp: string;
  /** Gate and up, or one: the only map, or gate and up packed. */
  readonly mlpIn: readonly string[];
  readonly mlpOut: string;
  /** Of a feed-forward part with experts: its router, and the list of experts, each with maps `mlpIn` and `mlpOut`. */
  readonly router?: string;
  readonly experts?: string;
  /** The last norm. */
  readonly norm?: string;
  /** The output map, outside `base`, where it is not the embedding. */
  readonly head: string;
}

/** Attention of one layer, where layers differ. */
export interface LayerAttention {
  /** How many keys a query sees, back from its own position, itself included; 0: all. */
  readonly window: number;
  /** Layers that turn alike share one object. */
  readonly rotary?: RotaryConfig | undefined;
}

/** A feed-forward part of several, of which each token uses a few. */
export interface ExpertsConfig {
  readonly count: number;
  readonly perToken: number;
  /** In training, activations are multiplied by 1 + jitter u with u uniform in [-1, 1) before they are routed. */
  readonly jitter: number;
  /** Weight in the loss of how unevenly experts are used; 0: it is no part of it. */
  readonly balance: number;
}

/**
 * A decoder-only transformer as data: families differ in these choices alone. Choices are independent of each other; what most families
 * do is the default of `completed` in families/family.ts.
 */
export interface DecoderConfig {
  readonly vocabSize: number;
  readonly dim: number;
  /** Width of the embeddings, where maps lie between them and the blocks. */
  readonly embedDim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpDim: number;
  /** Tokens that the model was made for: a limit where positions are learned, else what it was trained on. */
  readonly maxPositions: number;

  /** 'rms_one': RMS norm whose weights are stored less one. */
  readonly norm: 'layer' | 'rms' | 'rms_one';
  readonly normEps: number;
  /**
   * Where the norms of a block stand: before each part ('pre'), after the sum of each part and its input ('post'), or both parts
   * beside each other, each behind its norm of the same input ('parallel').
   */
  readonly block: 'pre' | 'post' | 'parallel';
  /** The residual stream goes on from the norms of a block and not from their input. */
  readonly residualFromNorm: boolean;

  /** Learned: a table whose first `offset` rows no token uses. Rotary: each layer says how. */
  readonly positions: { readonly kind: 'learned'; readonly offset: number } | { readonly kind: 'rotary' } | { readonly kind: 'alibi' };
  /** One for each layer. */
  readonly layerAttention: readonly LayerAttention[];
  /** Factor of q . k. */
  readonly attentionScale: number;
  /** Scores s become cap tanh(s / cap); 0: they stay. */
  readonly attentionSoftcap: number;
  /** The packed map gives [q | k | v] for one head after the other, not all q, all k, all v. */
  readonly qkvByHead: boolean;
  readonly attentionBias: boolean;
  readonly attentionOutBias: boolean;

  readonly mlp: MlpActivation;
  readonly mlpBias: boolean;
  /** In the place of one feed-forward part; each expert is one of `mlpDim`. */
  readonly experts?: ExpertsConfig | undefined;

  /** Factor of what the embedding gives. */
  readonly embedScale: number;
  readonly tieEmbeddings: boolean;
  /** Logits l become cap tanh(l / cap); 0: they stay. */
  readonly logitSoftcap: number;

  readonly layout: LinearLayout;
  readonly initStd: number;
  /** Of the maps that feed the residual stream. */
  readonly residualInitStd: number;
  readonly dropout: { readonly embedding: number; readonly attention: number; readonly residual: number };
  readonly names: DecoderNames;
  /** The config.json that this came from or would be saved as. */
  readonly huggingFace: Readonly<Record<string, unknown>>;
}
