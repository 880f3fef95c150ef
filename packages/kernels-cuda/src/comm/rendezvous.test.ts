import { once } from 'node:events';
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Communicator, RendezvousError } from '@deepspeed-ts/core';
import { freePort } from '@deepspeed-ts/test-kit';
import { expect, test } from 'vitest';
import { type ConnectOptions, connectOver } from './connect.js';
import { fakeNative } from './fake-native.js';

const address = '127.0.0.1';

interface Rank extends ConnectOptions {
  readonly gpu?: string;
  readonly version?: string;
  readonly problem?: string;
}

function connect({ gpu, version = '1.0.0', problem, ...options }: Rank): Promise<Communicator> {
  const native = fakeNative(gpu ?? `gpu ${options.rank}`, undefined, problem ?? null);
  return connectOver(native, version, { masterAddr: address, timeoutMs: 5000, ...options }, () => {});
}

/** Connects ranks of this process; the outcome of each. */
async function meet(port: number, ranks: readonly Rank[]): Promise<(Communicator | RendezvousError)[]> {
  const settled = await Promise.allSettled(ranks.map((rank) => connect({ masterPort: port, ...rank })));
  return settled.map((result) => (result.status === 'fulfilled' ? result.value : (result.reason as RendezvousError)));
}

async function closeAll(outcomes: readonly (Communicator | RendezvousError)[]): Promise<void> {
  await Promise.all(outcomes.map((outcome) => (outcome instanceof Error ? undefined : outcome.close())));
}

async function expectRefused(port: number, ranks: readonly Rank[], message: RegExp): Promise<void> {
  const outcomes = await meet(port, ranks);
  await closeAll(outcomes);
  for (const [i, outcome] of outcomes.entries()) {
    expect(outcome).toBeInstanceOf(RendezvousError);
    expect(outcome).toMatchObject({ rank: ranks[i]!.rank, code: 'ERR_RENDEZVOUS', message: expect.stringMatching(message) });
  }
}

async function serve(answer: string | null): Promise<{ server: Server; port: number }> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    if (answer !== null) socket.on('data', () => socket.write(answer));
  }).listen(0, address);
  await once(server, 'listening');
  return { server, port: (server.address() as { port: number }).port };
}

/** A connection that says `words`, as soon as somebody listens. */
async function call(port: number, words: string): Promise<Socket> {
  for (;;) {
    const socket = dial({ port, host: address });
    try {
      await once(socket, 'connect');
      socket.on('error', () => {});
      if (words) socket.write(words);
      return socket;
    } catch {
      await sleep(20);
    }
  }
}

test('ranks find each other, split and close', async () => {
  const port = await freePort();
  const world = (await meet(
    port,
    [0, 1, 2].map((rank) => ({ rank, size: 3 })),
  )) as Communicator[];
  expect(world.map(({ rank, size }) => [rank, size])).toEqual([
    [0, 3],
    [1, 3],
    [2, 3],
  ]);
  await Promise.all(world.map((rank) => rank.barrier()));
  const groups = await Promise.all(world.map((rank) => rank.split(rank.rank === 0 ? 0 : 1, -rank.rank)));
  expect(groups.map(({ rank, size }) => [rank, size])).toEqual([
    [0, 1],
    [1, 2],
    [0, 2],
  ]);
  await Promise.all(groups.map((group) => group.barrier()));
  await closeAll(groups);
  await Promise.all(world.map((rank) => rank.barrier()));
  await closeAll(world);
});

test('ranks that disagree about the world size all hear both sizes', async () => {
  await expectRefused(
    await freePort(),
    [
      { rank: 0, size: 3 },
      { rank: 1, size: 2 },
      { rank: 2, size: 3 },
    ],
    /world size.*rank 0 has WORLD_SIZE=3, rank 1 .* has 2/,
  );
});

test('two processes with one rank are named to everybody', async () => {
  await expectRefused(
    await freePort(),
    [
      { rank: 0, size: 3 },
      { rank: 1, size: 3 },
      { rank: 1, size: 3, gpu: 'another' },
    ],
    /two processes say that they are rank 1: .*pid \d+.* and .*pid \d+/,
  );
});

test('two processes with one GPU are named to everybody', async () => {
  await expectRefused(
    await freePort(),
    [
      { rank: 0, size: 2, gpu: 'the only one' },
      { rank: 1, size: 2, gpu: 'the only one' },
    ],
    /rank 0 .* and rank 1 .* use the same GPU \(fake, the only one\): .*LOCAL_RANK/,
  );
});

test('versions that differ are refused', async () => {
  await expectRefused(
    await freePort(),
    [
      { rank: 0, size: 2 },
      { rank: 1, size: 2, version: '2.0.0' },
    ],
    /rank 1 .* runs version 2.0.0 .* rank 0 version 1.0.0/,
  );
});

test('a rank without NCCL tells everybody', async () => {
  for (const without of [0, 1]) {
    await expectRefused(
      await freePort(),
      [0, 1].map((rank) => ({ rank, size: 2, ...(rank === without ? { problem: 'install libnccl2' } : {}) })),
      new RegExp(`rank ${without} .* can't take part: install libnccl2`),
    );
  }
});

test('ranks that never come are named to those who did when the time is up', async () => {
  const ranks = [0, 2].map((rank) => ({ rank, size: 5, timeoutMs: 700 }));
  await expectRefused(await freePort(), ranks, /3 of 5 ranks never came .* within 0\.7 s: rank 1, 3, 4\./);
});

test('a rank that finds no rank 0 says where it looked and for how long', async () => {
  const port = await freePort();
  await expectRefused(port, [{ rank: 1, size: 2, timeoutMs: 500 }], new RegExp(`no rank 0 at 127.0.0.1:${port} within 0.5 s .*refused`));
});

test('a port in use is an error of rank 0 that says what to do', async () => {
  const { server, port } = await serve(null);
  await expectRefused(port, [{ rank: 0, size: 2 }], /can't listen at 127.0.0.1:\d+: Address already in use\. .*another MASTER_PORT/);
  server.close();
});

test.each([
  ['answers something else', 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nWhat did you say?'],
  ['says nothing', null],
])('a foreign server on the port that %s is recognised by the other ranks', async (_what, answer) => {
  const { server, port } = await serve(answer);
  await expectRefused(port, [{ rank: 1, size: 2, timeoutMs: 1500 }], /not rank 0 of this program.*choose a free MASTER_PORT/);
  server.close();
});

test('rank 0 ignores strangers that call its port', async () => {
  const port = await freePort();
  const first = connect({ rank: 0, size: 2, masterPort: port });
  const strangers = [await call(port, 'GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n'), await call(port, '')];
  const ranks = await Promise.all([first, connect({ rank: 1, size: 2, masterPort: port })]);
  await Promise.all(ranks.map((rank) => rank.barrier()));
  await closeAll(ranks);
  for (const socket of strangers) socket.destroy();
});

test('ranks of another job are sent away, and their rank 0 goes on waiting', async () => {
  const outcomes = await meet(await freePort(), [
    { rank: 0, size: 2, job: 'a', timeoutMs: 1000 },
    { rank: 1, size: 2, job: 'b', timeoutMs: 1000 },
  ]);
  expect(outcomes[0]).toMatchObject({ message: expect.stringMatching(/1 of 2 ranks never came/) });
  expect(outcomes[1]).toMatchObject({ message: expect.stringMatching(/another job \(a, not b\)/) });
});
