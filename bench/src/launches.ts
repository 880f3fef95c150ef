import { add, type Device, empty, launch, ops, scope, watch } from '@deepspeed-ts/core';
import { report } from './measure.js';

const COUNT = 1000;

/** What an op costs the JavaScript thread: the launch alone, and with its output, the graph's node and their end. */
export async function benchLaunches(device: Device): Promise<void> {
  const addOp = ops.find(({ name }) => name === 'add')!;
  const [a, b, y] = [0, 1, 2].map(() => empty(device, [16], 'f32')) as [
    ReturnType<typeof empty>,
    ReturnType<typeof empty>,
    ReturnType<typeof empty>,
  ];
  const { tensor: watched } = watch(a);
  await measure('launch', device, () => {
    for (let i = 0; i < COUNT; i++) launch(addOp, [a, b], [y], {});
  });
  await measure('op, recorded for backward', device, () =>
    scope(() => {
      for (let i = 0; i < COUNT; i++) add(watched, b);
    }),
  );
  for (const t of [watched, a, b, y]) t.dispose();
}

async function measure(bench: string, device: Device, body: () => void): Promise<void> {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 50; round++) {
    const start = performance.now();
    body();
    best = Math.min(best, performance.now() - start);
    await device.backend.synchronize();
  }
  const microseconds = (best * 1000) / COUNT;
  report({ bench, microseconds, perSecond: 1e6 / microseconds, barMicroseconds: 2, ratio: 2 / microseconds });
}
