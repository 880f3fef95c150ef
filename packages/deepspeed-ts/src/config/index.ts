export { type DeepSpeedConfig, loadConfig, SECTIONS } from './load.js';
export { adamSettings } from './optimizer.js';
