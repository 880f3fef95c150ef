export { type PadOptions, padCollator, type TokenSample } from './data/collate.js';
export type { EncodeRecordOptions, TextTokenizer } from './data/encode.js';
export { DatasetError } from './data/errors.js';
export type { DatasetReport } from './data/limit.js';
export { type LoadDatasetOptions, loadDataset, openDataset, type TokenDataset } from './data/load-dataset.js';
export { type PackingPlan, packDocuments } from './data/pack.js';
export { openRecords, type Records, type Row } from './data/records.js';
export { CausalSelfAttention } from './decoder/attention.js';
export { DecoderBlock } from './decoder/block.js';
export type { DecoderConfig, DecoderNames, ExpertsConfig, LayerAttention } from './decoder/config.js';
export { DecoderLM, nextTokenLabels } from './decoder/decoder.js';
export { type ExpertsOutput, SparseExperts } from './decoder/experts.js';
export { MLP } from './decoder/mlp.js';
export { documentPositions } from './decoder/positions.js';
export type { RopeScaling } from './decoder/rope-scaling.js';
export type { RotaryConfig } from './decoder/rotary.js';
export { type Gpt2Options, gpt2 } from './families/gpt2.js';
export { decoderConfig, modelTypes } from './families/index.js';
export { DecoderCache } from './generation/cache.js';
export type { GenerativeLM, SequenceSizes } from './generation/decode.js';
export { generate, generateText, type Prompt } from './generation/generate.js';
export type { FinishReason, Generation } from './generation/sequence.js';
export type { GenerateOptions } from './generation/settings.js';
export { HubError, type HubErrorCode } from './hub/errors.js';
export type { DownloadProgress, HubOptions } from './hub/settings.js';
export type { LoraConfig, TargetModules } from './peft/config.js';
export { PeftError, type PeftErrorCode } from './peft/errors.js';
export { decoderOf, getPeftModel, type LoadAdapterOptions, PeftModel } from './peft/peft-model.js';
export { AutoModelForCausalLM, type FromPretrainedOptions, type ModelOptions } from './pretrained/auto-model.js';
export { PretrainedError, type PretrainedErrorCode } from './pretrained/errors.js';
export type { LoadReport, MatchOptions } from './pretrained/match.js';
export { PretrainedModel } from './pretrained/pretrained-model.js';
export { configWithDtype, type SavePretrainedOptions } from './pretrained/save.js';
export { AutoTokenizer, type TokenizerOptions } from './tokenizer/auto-tokenizer.js';
export { BYTE_VOCABULARY, writeByteTokenizer } from './tokenizer/byte-tokenizer.js';
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
export { type ResolvedArguments, TrainerError, type TrainingArguments } from './trainer/arguments.js';
export { type CallbackContext, type TrainerCallback, TrainerControl } from './trainer/callbacks.js';
export { EarlyStoppingCallback, type EarlyStoppingOptions } from './trainer/early-stopping.js';
export type { EvalDataset, Evaluation } from './trainer/evaluate.js';
export { ProgressCallback } from './trainer/progress.js';
export { hfSchedule, type ScheduleLength, type ScheduleName } from './trainer/schedules.js';
export { type LogEntry, TrainerState } from './trainer/state.js';
export { type ProcessingClass, Trainer, type TrainerOptions, type TrainOutput } from './trainer/trainer.js';
