import type { DecoderConfig, LayerAttention } from '../decoder/config.js';
import { completed } from './family.js';
import { likeLlama, llamaNames } from './llama.js';
import type { ConfigReader } from './reader.js';

/** Qwen2 and 2.5 (arXiv:2407.10671): Llama with biases of q, k and v; upper layers may have a sliding window. */
export function qwen2Family(read: ConfigReader): DecoderConfig {
  const llama = likeLlama(read, { maxPositions: 32_768, kvHeads: 32 });
  return completed(read, { ...llama, attentionBias: true, layerAttention: windowed(read, llama.layerAttention) });
}

/** Qwen3 (arXiv:2505.09388): no biases, RMSNorm of each query and key head before they turn. */
export function qwen3Family(read: ConfigReader): DecoderConfig {
  const llama = likeLlama(read, { maxPositions: 32_768, kvHeads: 32, headDim: 128 });
  const bias = read.get('attention_bias', false);
  return completed(read, {
    ...llama,
    attentionBias: bias,
    attentionOutBias: bias,
    layerAttention: windowed(read, llama.layerAttention),
    names: { ...llamaNames, qNorm: 'q_norm', kNorm: 'k_norm' },
  });
}

/** The window holds from layer `max_window_layers` on, unless `layer_types` says which layers have it. */
function windowed(read: ConfigReader, layers: readonly LayerAttention[]): LayerAttention[] {
  const window = read.get('use_sliding_window', false) ? read.orZero('sliding_window', 4096) : 0;
  const first = read.get('max_window_layers', 28);
  return withWindow(read, layers, window, (layer) => layer >= first);
}

/** `layer_types` of a config says which layers have the window, else `slides`. */
export function withWindow(
  read: ConfigReader,
  layers: readonly LayerAttention[],
  window: number,
  slides: (layer: number) => boolean,
): LayerAttention[] {
  const types = read.get<readonly string[] | null>('layer_types', null);
  if (types && (types.length !== layers.length || !types.every((type) => type === SLIDING || type === FULL)))
    read.refuse('layer_types', `; expected ${layers.length} of ${SLIDING} and ${FULL}`);
  return layers.map((layer, i) => ({ ...layer, window: (types ? types[i] === SLIDING : slides(i)) ? window : 0 }));
}

const SLIDING = 'sliding_attention';
const FULL = 'full_attention';
