export { CausalSelfAttention, DecoderBlock, MLP } from './decoder/block.js';
export { type DecoderConfig, type DecoderNames, decoderConfig, type Gpt2Options, gpt2 } from './decoder/config.js';
export { type CausalBatch, type CausalLM, DecoderLM, nextTokenLabels } from './decoder/decoder.js';
export { type Fp8Options, type Fp8State, Fp8Training } from './fp8.js';
export { type Initializer, init, initialise } from './init.js';
export { Embedding, fusedLinear, LayerNorm, Linear, type LinearOptions, RMSNorm } from './layers.js';
export { LocalStore, type LocalStoreOptions } from './local-store.js';
export { Module, namedModules, namedParameters, type Unit, unitsOf } from './module.js';
export { Parameter, type ParameterStore } from './parameter.js';
