import {
  bytesOf,
  type Communicator,
  DeepSpeedError,
  type Device,
  type DType,
  decode,
  empty,
  type HostTensor,
  type Tensor,
  unscoped,
} from '@deepspeed-ts/core';
import type { Placement, UnitLayout } from './layout.js';
import { flatten, statesNamed } from './optimizer-state.js';
import { QuantizedUnit } from './quantized-unit.js';
import type { UnitState } from './unit-state.js';

/** 'weights' for master weights, else the name of an optimizer state. */
export type StateKind = 'weights' | (string & {});

export interface ExportContext {
  readonly units: readonly (UnitState | QuantizedUnit)[];
  readonly communicator: Communicator;
  readonly device: Device;
  readonly stateNames: readonly string[];
}

/**
 * Reads bytes of a tensor as its device holds them, by default all. Asking is what counts: a read takes its turn among what the device
 * does, so the tensor may be changed or freed before the answer is there.
 */
export type ReadBytes = (from?: number, count?: number) => Promise<Uint8Array>;

/** A whole tensor of a kind, on the device. */
export interface ExportedTensor {
  readonly placement: Placement;
  readonly dtype: DType;
  /** To be asked before the next tensor is. */
  readonly read: ReadBytes;
}

/** Streams whole tensors to the host, gathering one unit at a time. */
export async function* exportTensors(context: ExportContext, kind: StateKind): AsyncGenerator<readonly [name: string, value: HostTensor]> {
  for await (const { placement, dtype, read } of exportUnits(context, kind, () => true)) {
    yield [placement.name, decode(await read(), placement.parameter.shape, dtype)];
  }
}

/**
 * The same as bytes, of the units that this rank wants; every rank takes part in gathering all of them. A rank wants other
 * units than its peers when ranks write files side by side.
 */
export async function* exportUnits(
  { units, communicator, device, stateNames }: ExportContext,
  kind: StateKind,
  wanted: (unit: UnitLayout) => boolean,
): AsyncGenerator<ExportedTensor> {
  if (kind !== 'weights' && !stateNames.includes(kind)) {
    throw new DeepSpeedError('ERR_UNKNOWN_STATE', `[export] expected 'weights' or one of ${stateNames.join(', ')}, got '${kind}'`);
  }
  for (const unit of units) {
    if (unit instanceof QuantizedUnit) {
      if (kind === 'weights') yield* exportValues(unit, communicator, wanted(unit.layout));
      continue;
    }
    const states = kind === 'weights' ? [] : statesNamed(unit.states, kind);
    const has = (placement: Placement) => kind === 'weights' || states.some((state) => state.covers(placement));
    // The same on every rank.
    if (!unit.layout.placements.some(has)) continue;
    const mine = kind === 'weights' ? unit.master.retain() : flatten(unit.states, kind, unit.owned);
    const whole = unit.options.stage === 0 ? mine : gather(unit, mine, communicator, device);
    try {
      if (!wanted(unit.layout)) continue;
      for (const placement of unit.layout.placements.filter(has)) {
        yield { placement, dtype: whole.dtype, read: readerOf(whole, placement.offset, placement.numel) };
      }
    } finally {
      whole.dispose();
    }
  }
}

/** What codes stand for, in f32, a parameter at a time. */
async function* exportValues(unit: QuantizedUnit, communicator: Communicator, wanted: boolean): AsyncGenerator<ExportedTensor> {
  unit.gather(communicator);
  unit.wait();
  try {
    if (!wanted) return;
    for (const placement of unit.layout.placements) {
      const values = unit.values(placement, [placement.numel], 'f32');
      try {
        yield { placement, dtype: 'f32', read: readerOf(values, 0, placement.numel) };
      } finally {
        values.dispose();
      }
    }
  } finally {
    if (unit.users === 0) unit.release();
  }
}

/** Reads elements of a flat tensor. */
export function readerOf(flat: Tensor, start: number, count: number): ReadBytes {
  const width = bytesOf(flat.dtype);
  return async (from = 0, bytes = count * width - from) => {
    if (bytes === 0) return new Uint8Array();
    flat.assertAlive();
    return flat.device.backend.read(flat.handle, flat.byteOffset + start * width + from, bytes);
  };
}

/** Takes over `mine`. */
function gather(unit: UnitState, mine: Tensor, communicator: Communicator, device: Device): Tensor {
  const whole = unscoped(() => empty(device, [unit.layout.padded], mine.dtype, { kind: 'communication', shared: true }));
  communicator.allGather(whole, mine, `export ${unit.index} ${unit.layout.name}`).wait();
  mine.dispose();
  return whole;
}
