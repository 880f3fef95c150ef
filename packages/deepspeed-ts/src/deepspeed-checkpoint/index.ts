export { type Converted, type ConvertOptions, type ConvertProgress, convertDeepSpeedCheckpoint } from './convert.js';
export { DeepSpeedCheckpointError } from './error.js';
