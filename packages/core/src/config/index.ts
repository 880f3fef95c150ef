export { type ComposeOptions, composeConfig } from './compose.js';
export { describe as describeSchema } from './describe.js';
export { type ConfigKeyReport, explainConfig } from './explain.js';
export { editDistance, nearest } from './nearest.js';
export type { ConfigPath } from './problems.js';
export type { FromProperties, FromSchema, Json, JsonSchema } from './schema.js';
export {
  type ConfigContext,
  type ConfigOf,
  type ConfigSection,
  defineSection,
  type ReportProblem,
  type Unsupported,
  whyUnsupported,
} from './section.js';
export { strictSchema } from './strict.js';
