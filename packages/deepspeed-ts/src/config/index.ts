export type { BatchTriad } from './batch.js';
export { checkConfigFile, type DeepSpeedConfig, loadConfig, SECTIONS } from './load.js';
