import { type Communicator, DeepSpeedError, type Device, decode, empty, type HostTensor, type Tensor, unscoped } from '@deepspeed-ts/core';
import type { Placement, UnitLayout } from './layout.js';
import type { UnitState } from './unit-state.js';

/** 'weights' for master weights, else the name of an optimizer state. */
export type StateKind = 'weights' | (string & {});

export interface ExportContext {
  readonly units: readonly UnitState[];
  readonly communicator: Communicator;
  readonly device: Device;
  readonly stateNames: readonly string[];
}

/** Streams whole tensors to the host, gathering one unit at a time. */
export async function* exportTensors(context: ExportContext, kind: StateKind): AsyncGenerator<readonly [name: string, value: HostTensor]> {
  for await (const [{ name, parameter }, bytes] of exportBytes(context, kind, () => true)) {
    yield [name, decode(bytes, parameter.shape, 'f32')];
  }
}

/**
 * The same as f32 bytes, of the units that this rank wants; every rank takes part in gathering all of them. A rank wants other
 * units than its peers when ranks write files side by side.
 */
export async function* exportBytes(
  { units, communicator, device, stateNames }: ExportContext,
  kind: StateKind,
  wanted: (unit: UnitLayout) => boolean,
): AsyncGenerator<readonly [placement: Placement, bytes: Uint8Array]> {
  const state = stateNames.indexOf(kind);
  if (kind !== 'weights' && state < 0) {
    throw new DeepSpeedError('ERR_UNKNOWN_STATE', `[export] expected 'weights' or one of ${stateNames.join(', ')}, got '${kind}'`);
  }
  for (const unit of units) {
    const mine = kind === 'weights' ? unit.master : unit.states[state]!;
    const whole = unit.options.stage === 0 ? mine.retain() : gather(unit, mine, communicator, device);
    try {
      if (!wanted(unit.layout)) continue;
      for (const placement of unit.layout.placements) yield [placement, await bytesOfRange(whole, placement.offset, placement.numel)];
    } finally {
      whole.dispose();
    }
  }
}

/** Elements of a flat tensor, as its device holds them. */
export async function bytesOfRange(flat: Tensor, start: number, count: number): Promise<Uint8Array> {
  const part = unscoped(() => flat.narrow(start, count));
  try {
    return await part.device.backend.read(part.handle, part.byteOffset, part.byteLength);
  } finally {
    part.dispose();
  }
}

function gather(unit: UnitState, mine: Tensor, communicator: Communicator, device: Device): Tensor {
  const whole = unscoped(() => empty(device, [unit.layout.padded], 'f32', { kind: 'communication', shared: true }));
  communicator.allGather(whole, mine).wait();
  return whole;
}
