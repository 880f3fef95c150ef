import { type Communicator, DeepSpeedError, type Device, empty, tensor, unscoped } from 'deepspeed-ts';

/** Another rank could not do its part; its own message says why. */
export class RankFailedError extends DeepSpeedError {
  constructor(readonly ranks: readonly number[]) {
    super('ERR_RANK_FAILED', `rank ${ranks.join(', ')} could not start (see there); this rank stops with it`);
  }
}

/** One number of every rank, in f32. Every rank calls it. */
export async function gather(communicator: Communicator, device: Device, value: number): Promise<number[]> {
  const mine = unscoped(() => tensor(device, [value], 'f32', [1], { kind: 'communication', shared: true }));
  const all = unscoped(() => empty(device, [communicator.size], 'f32', { kind: 'communication', shared: true }));
  try {
    communicator.allGather(all, mine).wait();
    return Array.from((await all.read()).data);
  } finally {
    mine.dispose();
    all.dispose();
  }
}

/** Does `body` on every rank. Where it throws on one it throws on all, so that nobody waits for a rank that has gone. */
export async function together<T>(communicator: Communicator, device: Device, body: () => T): Promise<T> {
  const outcome = attempt(body);
  const failed = await gather(communicator, device, 'error' in outcome ? 1 : 0);
  if ('error' in outcome) throw outcome.error;
  if (failed.includes(1)) throw new RankFailedError([...failed.keys()].filter((rank) => failed[rank] === 1));
  return outcome.value;
}

/** Highest memory use of every rank so far, in MiB. Every rank calls it. */
export async function memoryPerRank(communicator: Communicator, device: Device): Promise<number[]> {
  const mib = await gather(communicator, device, device.backend.memory().peak / 2 ** 20);
  return mib.map((value) => Math.round(value * 10) / 10);
}

function attempt<T>(body: () => T): { readonly value: T } | { readonly error: unknown } {
  try {
    return { value: body() };
  } catch (error) {
    return { error };
  }
}
