export type { World } from './environment.js';
export { LaunchError, type LaunchErrorCode } from './errors.js';
export { describeExit, describeFailure } from './exit-report.js';
export type { Job, LaunchResult, RankFailure } from './job.js';
export { type LaunchOptions, launch, start } from './launch.js';
export { main as runDeepSpeedCommand } from './main.js';
export type { RankExit, RankLine } from './rank-process.js';
