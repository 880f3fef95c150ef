import type { DecoderConfig } from '../decoder/config.js';
import { completed } from './family.js';
import { likeLlama, llamaNames } from './llama.js';
import type { ConfigReader } from './reader.js';
import { ropeOf } from './rope.js';

/**
 * Phi-3 and 3.5 (arXiv:2404.14219): Llama with q, k and v in one map and gate and up in another, dropout of the residual stream, and LongRoPE
 * where the context is long. Its configs call that 'su', or 'yarn', too.
 */
export function phi3Family(read: ConfigReader): DecoderConfig {
  const heads = read.need<number>('num_attention_heads');
  const headDim = read.get('head_dim', read.need<number>('hidden_size') / heads);
  const maxPositions = read.get('max_position_embeddings', 4096);
  const rotary = ropeOf(read, { headDim, maxPositions, partial: 1, originalPositions: 4096, longropeNames: ['su', 'yarn'] });
  const llama = likeLlama(read, { maxPositions, normEps: 1e-5, rotary });
  const window = read.orZero('sliding_window', null);
  return completed(read, {
    ...llama,
    layerAttention: llama.layerAttention.map((layer) => ({ ...layer, window })),
    // The embedding's dropout is in the configs, and in no implementation.
    dropout: { ...llama.dropout, residual: read.get('resid_pdrop', 0) },
    names: { ...llamaNames, qkv: ['qkv_proj'], mlpIn: ['gate_up_proj'] },
  });
}
