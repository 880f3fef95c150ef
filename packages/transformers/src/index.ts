export { CausalSelfAttention } from './decoder/attention.js';
export { DecoderBlock } from './decoder/block.js';
export type { DecoderConfig, DecoderNames, LayerAttention } from './decoder/config.js';
export { DecoderLM, nextTokenLabels } from './decoder/decoder.js';
export { MLP } from './decoder/mlp.js';
export { documentPositions } from './decoder/positions.js';
export type { RopeScaling } from './decoder/rope-scaling.js';
export type { RotaryConfig } from './decoder/rotary.js';
export { type Gpt2Options, gpt2 } from './families/gpt2.js';
export { decoderConfig, modelTypes } from './families/index.js';
export { AutoModelForCausalLM, type FromPretrainedOptions, type ModelOptions } from './pretrained/auto-model.js';
export { PretrainedError, type PretrainedErrorCode } from './pretrained/errors.js';
export type { LoadReport, MatchOptions } from './pretrained/match.js';
export { PretrainedModel } from './pretrained/pretrained-model.js';
export { AutoTokenizer, type TokenizerOptions } from './tokenizer/auto-tokenizer.js';
export { TokenizerError, type TokenizerErrorCode } from './tokenizer/errors.js';
export type {
  ChatMessage,
  ChatTemplateOptions,
  DecodeOptions,
  EncodeBatchOptions,
  EncodeOptions,
  TokenBatch,
  Tokenizer,
  TokenRows,
} from './tokenizer/tokenizer.js';
