import { type Communicator, DeepSpeedError, type Device, empty, type HostTensor, type Tensor, unscoped } from '@deepspeed-ts/core';
import type { UnitState } from './unit-state.js';

/** 'weights' for master weights, else the name of an optimizer state. */
export type StateKind = 'weights' | (string & {});

/** Streams whole tensors to the host, gathering one unit at a time. */
export async function* exportUnits(
  units: readonly UnitState[],
  communicator: Communicator,
  device: Device,
  kind: StateKind,
  stateNames: readonly string[],
): AsyncGenerator<readonly [name: string, value: HostTensor]> {
  const state = stateNames.indexOf(kind);
  if (kind !== 'weights' && state < 0) {
    throw new DeepSpeedError('ERR_UNKNOWN_STATE', `[export] expected 'weights' or one of ${stateNames.join(', ')}, got '${kind}'`);
  }
  for (const unit of units) {
    const mine = kind === 'weights' ? unit.master : unit.states[state]!;
    const whole = unit.options.stage === 0 ? mine.retain() : gather(unit, mine, communicator, device);
    try {
      for (const { name, parameter, offset, numel } of unit.layout.placements) {
        const part = unscoped(() => whole.narrow(offset, numel));
        const { data } = await part.read();
        part.dispose();
        yield [name, { shape: parameter.shape, dtype: 'f32', data }];
      }
    } finally {
      whole.dispose();
    }
  }
}

function gather(unit: UnitState, mine: Tensor, communicator: Communicator, device: Device): Tensor {
  const whole = unscoped(() => empty(device, [unit.layout.padded], 'f32', { kind: 'communication', shared: true }));
  communicator.allGather(whole, mine).wait();
  return whole;
}
