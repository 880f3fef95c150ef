export { type DeepSpeedConfig, loadConfig, SECTIONS } from './load.js';
