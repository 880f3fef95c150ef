import { type Device, empty, launch, ops } from '@deepspeed-ts/core';
import { report } from './measure.js';

/** What one op launch costs the JavaScript thread: encoding, the call into native code and queueing. */
export async function benchLaunches(device: Device): Promise<void> {
  const add = ops.find(({ name }) => name === 'add')!;
  const [a, b, y] = [0, 1, 2].map(() => empty(device, [16], 'f32')) as [
    ReturnType<typeof empty>,
    ReturnType<typeof empty>,
    ReturnType<typeof empty>,
  ];
  const count = 2000;
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 50; round++) {
    const start = performance.now();
    for (let i = 0; i < count; i++) launch(add, [a, b], [y], {});
    best = Math.min(best, performance.now() - start);
    await device.backend.synchronize();
  }
  const micros = (best * 1000) / count;
  report({ bench: 'launch', microseconds: micros, launchesPerSecond: 1e6 / micros, bar: 2, ratio: 2 / micros });
  for (const t of [a, b, y]) t.dispose();
}
