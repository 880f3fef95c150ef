export { DoesNotFitError } from './errors.js';
export { formatPlan } from './format.js';
export type { MemoryPlan, MemoryRows, PlannedSettings } from './memory-plan.js';
export { plan } from './plan.js';
export type { Proposal } from './proposal.js';
export type { PlanOptions } from './request.js';
