import { DeepSpeedError } from '@deepspeed-ts/core';
import { formatBytes } from './bytes.js';
import type { MemoryPlan } from './memory-plan.js';
import type { Proposal } from './proposal.js';

/** A run needs more memory than its devices have. Nothing has been allocated. */
export class DoesNotFitError extends DeepSpeedError {
  constructor(
    readonly plan: MemoryPlan,
    /** Bytes that a device has. */
    readonly memory: number,
    /** The cheapest change that fits; `undefined` where none was found. */
    readonly proposal: Proposal | undefined,
  ) {
    const { required, peak, worldSize } = plan;
    const { phase, unit } = peak.when;
    const alone = phase === 'setup';
    const where = unit ? `${phase} of ${unit}` : phase;
    const way = proposal
      ? `The cheapest change that fits (${formatBytes(proposal.plan.required)}): ${proposal.changes.join('; ')}. In the config: ${JSON.stringify(proposal.config)}`
      : 'No change that this planner knows of fits: use devices with more memory, or a smaller model or sequence';
    super(
      'ERR_DOES_NOT_FIT',
      `[plan] each of ${worldSize} rank${worldSize > 1 ? 's' : ''} needs ${formatBytes(required)}${alone ? ' for weights and optimizer state alone' : ''}, and its device has ${formatBytes(memory)}${alone ? '' : `; most is held in ${where}`}. ${way}`,
    );
  }
}
