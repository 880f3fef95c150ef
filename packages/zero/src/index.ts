export { type LocalValues, ParameterAccess } from './access.js';
export { zeroOptions, zeroSection } from './config.js';
export type { ExportedTensor, ReadBytes, StateKind } from './export.js';
export { type Placement, type Range, UnitLayout } from './layout.js';
export { GRADIENT, type StateBytes, type StatePart, type StateSource } from './local-state.js';
export type {
  FlatOptimizer,
  Optimizer,
  OptimizerOptions,
  OptimizerRange,
  OptimizerStep,
  ParameterOptimizer,
  StateSpec,
} from './optimizer.js';
export * from './optimizers/index.js';
export { type StepOptions, ZeroStore, type ZeroStoreOptions } from './store.js';
export type { Stage } from './unit-state.js';
export type { Trained, UnitUpdate } from './unit-update.js';
