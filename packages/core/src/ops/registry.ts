import type { HostTensor } from '../tensor/host.js';

/** An op's reference with its attributes in declared order, as backends receive them. */
export interface ReferenceOp {
  run(inputs: HostTensor[], attrs: readonly number[], outputs: HostTensor[]): void;
}

const references = new Map<string, ReferenceOp>();

export function registerReference(name: string, op: ReferenceOp): void {
  if (references.has(name)) throw new Error(`[defineOp] two ops are named '${name}'`);
  references.set(name, op);
}

export function referenceOp(name: string): ReferenceOp | undefined {
  return references.get(name);
}
