export { type Field, type HostArray, type Stacked, stack } from './collate.js';
export { DataError } from './data-error.js';
export { DataLoader, type DataLoaderOptions, type DataLoaderState, type Dataset } from './loader.js';
