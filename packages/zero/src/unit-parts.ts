import type { Parameter, Unit } from '@deepspeed-ts/core';

/** How a parameter is kept: trained, with master weights, gradients and optimizer state, or frozen, as weights in the compute dtype alone. */
export type Keeping = 'trained' | 'frozen';

/** A unit's parameters that are kept alike. */
export interface UnitPart extends Unit {
  readonly keeping: Keeping;
}

const ORDER: readonly Keeping[] = ['trained', 'frozen'];

/** The parts of a unit that there are. What is frozen now stays so as long as the store has it: it takes no memory for anything but weights. */
export function partsOf({ name, parameters }: Unit): UnitPart[] {
  const parts = new Map<Keeping, Map<string, Parameter>>(ORDER.map((keeping) => [keeping, new Map()]));
  for (const [path, parameter] of parameters) parts.get(keepingOf(parameter))!.set(path, parameter);
  return [...parts].filter(([, { size }]) => size > 0).map(([keeping, parameters]) => ({ name, parameters, keeping }));
}

function keepingOf({ requiresGrad }: Parameter): Keeping {
  return requiresGrad ? 'trained' : 'frozen';
}
