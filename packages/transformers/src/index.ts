export { CausalSelfAttention, DecoderBlock, MLP } from './decoder/block.js';
export { type DecoderConfig, type DecoderNames, decoderConfig, type Gpt2Options, gpt2 } from './decoder/config.js';
export { DecoderLM, nextTokenLabels } from './decoder/decoder.js';
export { documentPositions } from './decoder/positions.js';
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
