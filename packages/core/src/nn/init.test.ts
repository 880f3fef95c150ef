import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import type { DType } from '../dtype.js';
import { empty } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import { type Initializer, init, initialise } from './init.js';

class HostOnly extends ReferenceBackend {
  override supports(op: string, dtypes: readonly DType[]): boolean {
    return super.supports(op, dtypes) && !op.startsWith('random_');
  }
}

const key = { seed: 2 ** 40 + 5, name: 'a.weight' };
const initializers: [string, Initializer][] = [
  ['normal', init.normal(0.02, 0.5)],
  ['uniform', init.uniform(-1, 3)],
  ['constant', init.constant(1.25)],
];

const devices: Device[] = [];
beforeEach(() => {
  devices.length = 0;
});
afterEach(() => {
  for (const device of devices) expect(device.describeLive(), 'buffers alive at the end').toEqual([]);
});

function made(initializer: Initializer, start: number, count: number, dtype: 'f32' | 'bf16', backend = new ReferenceBackend()): number[] {
  const device = new Device(backend);
  devices.push(device);
  using target = empty(device, [count], dtype);
  initialise(initializer, key, target, start);
  return [...target.readSync().data];
}

describe('initialise', () => {
  it.each(initializers)('makes on the device what the host would write: %s', (_, initializer) => {
    for (const dtype of ['f32', 'bf16'] as const) {
      const host = made(initializer, 7, 50, dtype, new HostOnly());
      expect(made(initializer, 7, 50, dtype)).toEqual(host);
      expect(made((...args) => initializer(...args), 7, 50, dtype)).toEqual(host);
    }
  });

  it.each(initializers)('makes slices of the whole, wherever they begin: %s', (_, initializer) => {
    const whole = made(initializer, 0, 40, 'f32');
    for (const start of [0, 1, 2, 3, 4, 17]) expect(made(initializer, start, 9, 'f32')).toEqual(whole.slice(start, start + 9));
  });
});
