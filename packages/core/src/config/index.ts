export { type ComposeOptions, composeConfig } from './compose.js';
export { describe as describeSchema } from './describe.js';
export { editDistance, nearest } from './nearest.js';
export type { Path } from './problems.js';
export type { FromProperties, FromSchema, Json, JsonSchema } from './schema.js';
export { type ConfigContext, type ConfigOf, defineSection, type Report, type Section } from './section.js';
export { strictSchema } from './strict.js';
