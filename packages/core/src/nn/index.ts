export { type BlockState, throughBlocks } from './blocks.js';
export type { CausalBatch, CausalLM } from './causal-lm.js';
export { type Fp8Options, type Fp8State, Fp8Training } from './fp8.js';
export { type Initializer, init, initialise } from './init.js';
export { Embedding, fusedLinear, LayerNorm, Linear, type LinearOptions, RMSNorm } from './layers.js';
export { LocalStore, type LocalStoreOptions } from './local-store.js';
export { type Child, Module, namedModules, namedParameters, type Unit, unitsOf } from './module.js';
export { Parameter, type ParameterStore } from './parameter.js';
