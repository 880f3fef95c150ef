import type { DecoderConfig, LayerAttention } from '../decoder/config.js';
import { completed, type Description } from './family.js';
import { likeLlama, llamaNames } from './llama.js';
import { withWindow } from './qwen.js';
import type { ConfigReader, RawConfig } from './reader.js';
import { ropeOf } from './rope.js';

/**
 * Gemma 2 (arXiv:2408.00118): embeddings times sqrt(dim), RMSNorm whose weights are stored less one on both sides of each part, GEGLU,
 * soft caps of scores and logits, and a sliding window in every other layer.
 */
export function gemma2Family(read: ConfigReader): DecoderConfig {
  const gemma = likeGemma(read, 8192);
  const window = read.orZero('sliding_window', 4096);
  return completed(read, {
    ...gemma,
    layerAttention: withWindow(read, gemma.layerAttention, window, (layer) => layer % 2 === 0),
    attentionSoftcap: read.orZero('attn_logit_softcapping', 50),
    logitSoftcap: read.orZero('final_logit_softcapping', 30),
  });
}

/**
 * Gemma 3's text models (arXiv:2503.19786): norms of query and key heads in place of the cap on scores, five layers with a window for one
 * without, and a rotary base for each kind. (A cap of scores may stand in a config; no implementation applies it.)
 */
export function gemma3Family(read: ConfigReader): DecoderConfig {
  const gemma = likeGemma(read, 131_072);
  const window = read.orZero('sliding_window', 4096);
  const period = read.get('sliding_window_pattern', 6);
  const layers = withWindow(read, gemma.layerAttention, window, (layer) => (layer + 1) % period !== 0);
  const { headDim, maxPositions } = gemma;
  const { full, sliding } = bothRopes(read);
  const everywhere = ropeOf(read, { headDim, maxPositions, theta: 1_000_000 }, full);
  const local = ropeOf(read, { headDim, maxPositions, theta: 10_000, thetaKey: 'rope_local_base_freq' }, sliding);
  return completed(read, {
    ...gemma,
    layerAttention: layers.map((layer) => ({ ...layer, rotary: layer.window > 0 ? local : everywhere })),
    logitSoftcap: read.orZero('final_logit_softcapping', null),
    names: { ...gemma.names, qNorm: 'q_norm', kNorm: 'k_norm' },
  });
}

function likeGemma(
  read: ConfigReader,
  maxPositions: number,
): Description & { headDim: number; attentionScale: number; layerAttention: LayerAttention[] } {
  read.refuseIf('use_bidirectional_attention', true);
  const llama = likeLlama(read, {
    maxPositions,
    kvHeads: 4,
    headDim: 256,
    tieEmbeddings: true,
    activationKey: 'hidden_activation',
    activation: 'gelu_pytorch_tanh',
  });
  const bias = read.get('attention_bias', false);
  return {
    ...llama,
    norm: 'rms_one',
    attentionScale: read.get('query_pre_attn_scalar', 256) ** -0.5,
    attentionBias: bias,
    attentionOutBias: bias,
    embedScale: Math.sqrt(llama.dim),
    names: {
      ...llamaNames,
      attentionPostNorm: 'post_attention_layernorm',
      mlpNorm: 'pre_feedforward_layernorm',
      mlpPostNorm: 'post_feedforward_layernorm',
    },
  };
}

/** `rope_parameters` by kind of layer, as transformers 5 writes them; before it `rope_scaling` was that of layers without a window. */
function bothRopes({ raw }: ConfigReader): { full: RawConfig; sliding: RawConfig } {
  const byKind = (raw.rope_parameters ?? {}) as Readonly<Record<string, RawConfig | null>>;
  const full = { ...byKind.full_attention, ...(raw.rope_scaling as RawConfig | null) };
  return { full, sliding: byKind.sliding_attention ?? {} };
}
