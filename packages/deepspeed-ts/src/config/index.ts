export type { BatchTriad } from './batch.js';
export { type DeepSpeedConfig, loadConfig, SECTIONS } from './load.js';
export { type AdamSettings, adamSettings, type OptimizerConfig } from './optimizer.js';
