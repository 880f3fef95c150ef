import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { CollectiveTimes } from './collectives-rank.js';
import { report } from './measure.js';

const ranks = 2;

/** Collectives between two processes of this machine, beside what both copy within their own memory at the same time. */
export async function benchCollectives(): Promise<void> {
  for (const transport of ['auto', 'tcp'] as const) {
    const port = await freePort();
    const children = Array.from({ length: ranks }, (_, rank) => start(rank, port, transport));
    const [times] = await Promise.all(children.map(answer));
    for (const { name, memory, bytes, ms, copyGBs } of times!) {
      const algbw = bytes / ms / 1e6;
      const where = transport === 'tcp' ? 'TCP loopback' : `shared memory, tensors ${memory}`;
      report({ bench: name, ranks, where, MB: bytes / 2 ** 20, ms, GBs: algbw, copyGBs, ofCopy: algbw / copyGBs });
    }
  }
}

function start(rank: number, port: number, transport: string): ChildProcess {
  const place = { RANK: rank, LOCAL_RANK: rank, WORLD_SIZE: ranks, LOCAL_WORLD_SIZE: ranks, MASTER_ADDR: '127.0.0.1', MASTER_PORT: port };
  const words = Object.fromEntries(Object.entries(place).map(([name, value]) => [name, String(value)]));
  return fork(fileURLToPath(new URL('./collectives-rank.ts', import.meta.url)), [], {
    env: { ...process.env, ...words, DEEPSPEED_TS_COMM: transport },
  });
}

/** What a rank sends before it ends. */
async function answer(child: ChildProcess): Promise<CollectiveTimes[]> {
  const died = once(child, 'exit').then(([code]) => Promise.reject(new Error(`a rank ended with code ${code}`)));
  died.catch(() => {});
  const [times] = (await Promise.race([once(child, 'message'), died])) as [CollectiveTimes[]];
  return times;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
