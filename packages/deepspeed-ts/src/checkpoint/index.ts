export { CheckpointError, type CheckpointErrorCode } from './error.js';
export type { Differences } from './match.js';
export { type LoadCheckpointOptions, type LoadedCheckpoint, type SaveCheckpointOptions, SavedCheckpoint } from './options.js';
export type { Rename } from './rename.js';
