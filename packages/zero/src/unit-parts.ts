import { type Parameter, QUANTIZED_BLOCK, type QuantizedFormat, storageOf, type Unit } from '@deepspeed-ts/core';

/**
 * How a parameter is kept: trained, with master weights, gradients and optimizer state; frozen, as weights in the compute dtype alone; or frozen as
 * codes of a format.
 */
export type Keeping = 'trained' | 'frozen' | QuantizedFormat;

/** A unit's parameters that are kept alike. */
export interface UnitPart extends Unit {
  readonly keeping: Keeping;
}

const ORDER: readonly Keeping[] = ['trained', 'frozen', 'int8', 'nf4'];

/**
 * The parts of a unit that there are. What is frozen now stays so as long as the store has it: it takes no memory for anything but weights.
 *
 * @throws DeepSpeedError where a parameter is to be trained and kept as codes
 */
export function partsOf({ name, parameters }: Unit): UnitPart[] {
  const parts = new Map<Keeping, Map<string, Parameter>>(ORDER.map((keeping) => [keeping, new Map()]));
  for (const [path, parameter] of parameters) parts.get(keepingOf(path, parameter))!.set(path, parameter);
  return [...parts].filter(([, { size }]) => size > 0).map(([keeping, parameters]) => ({ name, parameters, keeping }));
}

/** Where parameters begin and slices are cut: at multiples of this many elements. */
export function alignmentOf(keeping: Keeping, trained: number): number {
  return keeping === 'trained' ? trained : keeping === 'frozen' ? 1 : QUANTIZED_BLOCK;
}

function keepingOf(name: string, parameter: Parameter): Keeping {
  const storage = storageOf(name, parameter);
  return parameter.requiresGrad ? 'trained' : (storage ?? 'frozen');
}
