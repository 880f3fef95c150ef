import { Device, full } from '@deepspeed-ts/core';
import { communicatorContract, freePort } from '@deepspeed-ts/test-kit';
import { expect, test } from 'vitest';
import { connectOver } from './connect.js';
import { FakeDevice, fakeNative } from './fake-native.js';

// Who is lost, closed, silent, or calls something else: all of it is the control plane's, so it shows without a GPU.
communicatorContract('control plane without NCCL', {
  open: new URL('./open-fake-rank.ts', import.meta.url),
  sizes: [],
  failureSize: 3,
  silenceVariable: 'DEEPSPEED_TS_COMM_TIMEOUT',
});

test('a rank whose own computation has failed takes no part, and its peers hear why', async () => {
  const port = await freePort();
  const backends = [new FakeDevice(), new FakeDevice()];
  const ranks = await Promise.all(
    backends.map((backend, rank) => connectOver(fakeNative(`gpu ${rank}`, backend), '0', { rank, size: 2, masterPort: port }, () => {})),
  );
  backends[0]!.broken = true;
  backends[1]!.hangs = true; // its GPU waits for rank 0's
  const seen = await Promise.all(
    ranks.map(async (communicator, rank) => {
      const device = new Device(backends[rank]!);
      const x = full(device, [8], 'f32', 1);
      const error = await communicator
        .allReduce(x)
        .finished()
        .catch((reason: Error) => reason);
      x.dispose();
      expect(device.liveBuffers).toBe(0);
      return error;
    }),
  );
  expect(seen[0]).toMatchObject({ name: 'PeerLostError', rank: 0, message: expect.stringMatching(/its own computation has failed/) });
  expect(seen[1]).toMatchObject({
    name: 'PeerLostError',
    rank: 1,
    peer: 0,
    message: expect.stringMatching(/rank 1 lost rank 0 in all_reduce #1 \(sum of 8 f32\): its own computation has failed/),
  });
  await Promise.all(ranks.map((rank) => rank.close()));
});

test('a rank that never calls keeps nobody waiting at close()', async () => {
  const port = await freePort();
  const ranks = await Promise.all(
    [0, 1].map((rank) => connectOver(fakeNative(`gpu ${rank}`), '0', { rank, size: 2, masterPort: port, silenceMs: 200 }, () => {})),
  );
  await ranks[1]!.close();
  await expect(ranks[0]!.barrier()).rejects.toThrow(/rank 0 lost rank 1 in barrier #1: it has closed its communicator/);
  await ranks[0]!.close();
});
