import type { Phase } from '../engine/wall-clock.js';

/** Milliseconds of the phases of one step, over all its micro-batches. */
export type PhaseTimes = Record<Phase, number>;

export const noTimes = (): PhaseTimes => ({ forward: 0, backward: 0, step: 0 });
