export { type Field, type Stacked, stack } from './collate.js';
export { DataError } from './data-error.js';
export { type FileDatasetOptions, fileDataset } from './file-dataset.js';
export { DataLoader, type DataLoaderOptions } from './loader.js';
export { type OpenLoaderOptions, openLoader } from './open-loader.js';
export { PrefetchLoader } from './prefetch-loader.js';
export { type DataLoaderState, ResumableSampler, type SamplerOptions } from './sampler.js';
export { WorkerDataset, type WorkerDatasetOptions } from './workers.js';
