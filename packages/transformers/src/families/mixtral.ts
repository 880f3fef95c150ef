import type { DecoderConfig } from '../decoder/config.js';
import { completed } from './family.js';
import { likeLlama, llamaNames } from './llama.js';
import type { ConfigReader } from './reader.js';
import { ropeOf } from './rope.js';

/** Mixtral (Jiang et al., arXiv:2401.04088): Mistral's attention, and of several feed-forward parts the few that each token chooses. */
export function mixtralFamily(read: ConfigReader): DecoderConfig {
  const sizes = { maxPositions: read.get('max_position_embeddings', 4096 * 32), headDim: headDimOf(read) };
  const rotary = ropeOf(read, { ...sizes, theta: 1e6 });
  const llama = likeLlama(read, { ...sizes, rotary, kvHeads: 8, normEps: 1e-5 });
  const window = read.orZero('sliding_window', null);
  return completed(read, {
    ...llama,
    layerAttention: llama.layerAttention.map((layer) => ({ ...layer, window })),
    mlp: read.oneOf('hidden_act', 'silu', { silu: 'swiglu', swish: 'swiglu' }),
    experts: {
      count: read.get('num_local_experts', 8),
      perToken: read.get('num_experts_per_tok', 2),
      jitter: read.get('router_jitter_noise', 0),
      balance: read.get('output_router_logits', false) ? read.get('router_aux_loss_coef', 0.001) : 0,
    },
    names: { ...llamaNames, mlp: 'block_sparse_moe', router: 'gate', experts: 'experts', mlpIn: ['w1', 'w3'], mlpOut: 'w2' },
  });
}

function headDimOf(read: ConfigReader): number {
  return read.nullable('head_dim', null) ?? read.need<number>('hidden_size') / read.need<number>('num_attention_heads');
}
