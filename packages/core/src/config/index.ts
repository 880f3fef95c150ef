export { type ComposeOptions, composeConfig } from './compose.js';
export { describe as describeSchema } from './describe.js';
export { editDistance, nearest } from './nearest.js';
export type { ConfigPath } from './problems.js';
export type { FromProperties, FromSchema, Json, JsonSchema } from './schema.js';
export { type ConfigContext, type ConfigOf, type ConfigSection, defineSection, type ReportProblem } from './section.js';
export { strictSchema } from './strict.js';
