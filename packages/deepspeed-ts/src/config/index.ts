export type { BatchTriad } from './batch.js';
export { checkConfigFile, checkedConfig, type DeepSpeedConfig, loadConfig, SECTIONS } from './load.js';
