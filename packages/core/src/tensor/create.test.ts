import { expect, test } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { fromArray } from './create.js';
import { Device } from './device.js';

test('an array of integers or floats becomes a tensor with its values, also where it lies within a larger one', () => {
  const device = new Device(new ReferenceBackend());
  const ids = fromArray(device, Int32Array.of(9, 1, -2, 3).subarray(1), [3]);
  const values = fromArray(device, Float32Array.of(0.5, -1.5), [1, 2]);
  expect([ids.dtype, ...ids.readSync().data]).toEqual(['i32', 1, -2, 3]);
  expect([values.dtype, ...values.readSync().data]).toEqual(['f32', 0.5, -1.5]);
  ids.dispose();
  values.dispose();
});

test('an array of another length or type is refused', () => {
  const device = new Device(new ReferenceBackend());
  expect(() => fromArray(device, Int32Array.of(1, 2, 3), [2, 2])).toThrow('[fromArray] expected 4 values for shape [2, 2], got 3');
  expect(() => fromArray(device, [1, 2] as never, [2])).toThrow('[fromArray] expected an Int32Array or a Float32Array, got Array');
  expect(device.liveBuffers).toBe(0);
});
