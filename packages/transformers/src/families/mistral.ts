import type { DecoderConfig } from '../decoder/config.js';
import { completed, type Description } from './family.js';
import { likeLlama } from './llama.js';
import type { ConfigReader } from './reader.js';

/** Mistral (Jiang et al., arXiv:2310.06825): Llama whose queries see the last `sliding_window` keys alone, where that is no null. */
export function mistralFamily(read: ConfigReader): DecoderConfig {
  return completed(read, likeMistral(read));
}

export function likeMistral(read: ConfigReader): Description {
  const llama = likeLlama(read, { maxPositions: 4096 * 32, kvHeads: 8 });
  const window = read.orZero('sliding_window', 4096);
  return { ...llama, layerAttention: llama.layerAttention.map((layer) => ({ ...layer, window })) };
}
