export type { BatchTriad } from './batch.js';
export { type CheckedConfig, checkConfigFile, type DeepSpeedConfig, loadConfig, SECTIONS } from './load.js';
