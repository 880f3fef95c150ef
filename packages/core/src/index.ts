export { type Argument, apply } from './autograd/apply.js';
export { backward } from './autograd/backward.js';
export { checkpoint } from './autograd/checkpoint.js';
export { type CheckpointPhase, type CheckpointPolicy, checkpointPolicy, withCheckpointPolicy } from './autograd/checkpoint-policy.js';
export { Leaf, watch } from './autograd/leaf.js';
export { noGrad } from './autograd/mode.js';
export type { AllocateOptions, Backend, BufferHandle, DeviceMemory, View } from './backend/backend.js';
export type { HeapRule, MemoryModel, ScratchRequest } from './backend/memory-model.js';
export { NativeKernels, type NativeLaunches } from './backend/native-kernels.js';
export { ReferenceBackend } from './backend/reference-backend.js';
export { openBackend, registerBackend } from './backend/registry.js';
export { CallSites } from './comm/call-sites.js';
export { checkReducible, checkSlices } from './comm/check.js';
export type { Communicator, ReduceOp, Work, WorkTiming } from './comm/communicator.js';
export { environmentNumber, placeFromEnvironment, type WorldPlace } from './comm/environment.js';
export { WorldOfOne } from './comm/world-of-one.js';
export * from './config/index.js';
export type {
  AsyncDataset,
  Batch,
  BatchLoader,
  Dataset,
  HostArray,
  IterableDataset,
  ThreadedDataset,
  TrainingData,
} from './data.js';
export { bytesOf, type DType, dtypes, type FloatDType, isFloat } from './dtype.js';
export type {
  BatchInfo,
  CheckpointedEngine,
  CompletedConfig,
  ConfigPlace,
  Initialize,
  LearningRates,
  TrainingEngine,
  TrainingSetup,
} from './engine.js';
export * from './errors.js';
export * from './nn/index.js';
export { type ExecutionObserver, withExecutionObserver } from './observe.js';
export * from './ops/index.js';
export * from './pickle/index.js';
export { type RandomContext, randomContext, withRandom } from './random/context.js';
export { normals, philox, type RandomKey, splitSeed, streamOf, uniforms } from './random/philox.js';
export { configJson } from './safetensors/config-json.js';
export { dtypeOf as dtypeOfSafetensors } from './safetensors/format.js';
export { SafetensorsFile } from './safetensors/read.js';
export { packShards, SHARD_BYTES, shardName } from './safetensors/shards.js';
export { type CompanionFile, WeightFiles, type WeightFilesOptions } from './safetensors/weight-files.js';
export { safetensorsHeader, type TensorPlan, writeSafetensors } from './safetensors/write.js';
export { type CreateOptions, empty, fill, fromArray, fromHost, full, tensor, write, zeros } from './tensor/create.js';
export { Buffer, Device, type MemoryKind } from './tensor/device.js';
export { narrowF32 } from './tensor/half.js';
export { decode, encode, type HostTensor, hostTensor, rounded } from './tensor/host.js';
export { scope, unscoped } from './tensor/scope.js';
export { describe, numelOf, type Shape, Tensor, type TensorSpec } from './tensor/tensor.js';
export * from './torch/index.js';
export { startModule } from './worker.js';
