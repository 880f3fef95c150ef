export { CausalSelfAttention, DecoderBlock, MLP } from './decoder/block.js';
export { type DecoderConfig, type DecoderNames, decoderConfig, type Gpt2Options, gpt2 } from './decoder/config.js';
export { DecoderLM, nextTokenLabels } from './decoder/decoder.js';
export { documentPositions } from './decoder/positions.js';
