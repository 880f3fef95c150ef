export { type Field, type HostArray, type Stacked, stack } from './collate.js';
export { DataError } from './data-error.js';
export type { IterableDataset } from './item-source.js';
export { DataLoader, type DataLoaderOptions, type Dataset } from './loader.js';
export { type OpenLoaderOptions, openLoader, type TrainingData } from './open-loader.js';
export { PrefetchLoader } from './prefetch-loader.js';
export type { AsyncDataset } from './produce.js';
export { type DataLoaderState, ResumableSampler, type SamplerOptions } from './sampler.js';
export { WorkerDataset, type WorkerDatasetOptions } from './workers.js';
