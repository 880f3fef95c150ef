export * from '@deepspeed-ts/core';
export { connect, cpuBackend } from '@deepspeed-ts/kernels-cpu';
export * from '@deepspeed-ts/transformers';
export {
  type AdagradOptions,
  type AdamOptions,
  adagrad,
  adam,
  adamw8bit,
  type FlatOptimizer,
  type LambOptions,
  type LionOptions,
  type LocalValues,
  lamb,
  lion,
  type MuonOptions,
  muon,
  type Optimizer,
  type OptimizerOptions,
  type OptimizerStep,
  type ParameterOptimizer,
  plainSgd,
  type SgdOptions,
  type Stage,
  sgd,
  ZeroStore,
} from '@deepspeed-ts/zero';
export { AutoModelForCausalLM } from './auto-model.js';
export * from './checkpoint/index.js';
export { type DeepSpeedConfig, loadConfig } from './config/index.js';
export * from './data/index.js';
export * from './deepspeed-checkpoint/index.js';
export { type DeviceName, type OpenedDevice, openDevice } from './device.js';
export type { DebugAccess, FullValues } from './engine/debug.js';
export { DeepSpeedEngine, type TrainableModel } from './engine/engine.js';
export { LossScaleError, NonFiniteError } from './engine/errors.js';
export { EngineOptimizer, type GroupOverrides, type ParameterGroup, type ParameterGroups } from './engine/optimizer.js';
export { type EngineReport, formatReport } from './engine/report.js';
export type { Save16bitModelOptions, SaveModelOptions } from './engine/save-model.js';
export type { WallClockBreakdown } from './engine/wall-clock.js';
export { type Initialized, type InitializeOptions, initialize } from './initialize.js';
export type { CommunicationLog, CommunicationRow } from './observe/comms/communication-log.js';
export { flopsPerToken, matmulParameters } from './observe/model-flops.js';
export type { ReportedRates } from './observe/observability.js';
export type { ModelProfile, ModuleProfile } from './observe/profile/profile.js';
export { formatProfile, type ProfileTableOptions } from './observe/profile/profile-table.js';
export { type ConfiguredOptimizer, noDecayForNormsAndBiases } from './optimizers/index.js';
export {
  DoesNotFitError,
  formatPlan,
  type MemoryPlan,
  type MemoryRows,
  type PlannedSettings,
  type PlanOptions,
  type Proposal,
  plan,
} from './plan/index.js';
export { type DynamicLossScaleOptions, DynamicLossScaler, type LossScaler, type LossScalerState } from './precision/index.js';
export { createSchedule, createScheduler, LRScheduler, type Schedule, type SchedulerConfig } from './schedules/index.js';
export { Trainer, type TrainerOptions } from './trainer.js';
