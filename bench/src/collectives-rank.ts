import { type Communicator, copy, Device, full, launch, type Tensor, type Work } from '@deepspeed-ts/core';
import { connect, cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { time } from './measure.js';

/** One figure of {@link benchCollectives}. */
export interface CollectiveTimes {
  readonly name: string;
  readonly memory: 'shared' | 'private';
  /** Of the whole tensor (f32). */
  readonly bytes: number;
  readonly ms: number;
  /** What each rank copies within its own memory while the other does too: bytes read. */
  readonly copyGBs: number;
}

/** One of the two processes. */
async function main(): Promise<void> {
  const communicator = await connect();
  const device = new Device(cpuBackend({ threads: 1 }));
  const results: CollectiveTimes[] = [];
  for (const memory of process.env.DEEPSPEED_TS_COMM === 'tcp' ? (['private'] as const) : (['shared', 'private'] as const)) {
    for (const bytes of [1 << 20, 64 << 20]) {
      const whole = full(device, [bytes / 4], 'f32', 1, { shared: memory === 'shared' });
      const slice = whole.narrow(0, whole.numel / communicator.size);
      const own = full(device, [slice.numel], 'f32', 1, { shared: memory === 'shared' });
      const copyGBs = await copyRate(communicator, device, whole);
      for (const [name, call] of [
        ['all-reduce', () => communicator.allReduce(whole)],
        ['reduce-scatter', () => communicator.reduceScatter(own, whole)],
        ['all-gather', () => communicator.allGather(whole, own)],
      ] as const) {
        results.push({ name, memory, bytes, ms: await perCall(communicator, call, bytes), copyGBs });
      }
      for (const tensor of [whole, slice, own]) tensor.dispose();
    }
  }
  await communicator.close();
  process.send!(results);
  process.disconnect();
}

/** Small ones by the dozen: the time of one, not of a round trip to JavaScript. */
async function perCall(communicator: Communicator, call: () => Work, bytes: number): Promise<number> {
  const calls = bytes > 1 << 24 ? 1 : 32;
  const { median } = await time(
    async () => {
      await communicator.barrier();
      let last: Work | undefined;
      for (let i = 0; i < calls; i++) last = call();
      await last!.finished();
    },
    { runs: 15, warmup: 3 },
  );
  return median / calls;
}

async function copyRate(communicator: Communicator, device: Device, source: Tensor): Promise<number> {
  const target = full(device, source.shape, 'f32', 0);
  await communicator.barrier();
  const { median } = await time(async () => {
    for (let i = 0; i < 4; i++) launch(copy, [source], [target], {});
    await device.backend.synchronize();
  });
  target.dispose();
  return (4 * source.byteLength) / median / 1e6;
}

await main();
