import { type Backend, Device } from '@deepspeed-ts/core';
import { expect } from 'vitest';

/** Runs `body` on a fresh device and checks that nothing it made is still alive. */
export function withDevice<T>(backend: Backend, body: (device: Device) => T): T {
  const device = new Device(backend);
  const finish = (result: T): T => {
    expect(device.describeLive(), 'buffers still alive at the end').toEqual([]);
    return result;
  };
  const result = body(device);
  return result instanceof Promise ? (result.then(finish) as T) : finish(result);
}
