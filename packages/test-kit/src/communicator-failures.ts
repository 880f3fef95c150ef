import { setTimeout as sleep } from 'node:timers/promises';
import { type Communicator, type Device, type DType, full, type Tensor } from '@deepspeed-ts/core';
import type { Stage } from './communicator-scenarios.js';

/** The scenarios of the communicator contract in which something goes wrong. */
export const failures = {
  /**
   * The last rank calls something else, or closes, each time in a group of its own; then the same in the world, and what that
   * does to later work.
   */
  async disagreements(stage: Stage): Promise<{ mismatches: (ErrorData | null)[]; closed: ErrorData | null; after: Failure }> {
    const { rank, size } = stage.communicator;
    const last = rank === size - 1;
    const calls: ((group: Communicator) => Promise<unknown>)[] = [
      (group) => group.allReduce(make(stage, 'f32', last ? 11 : 10)).finished(),
      (group) => group.allReduce(make(stage, last ? 'bf16' : 'f32', 10)).finished(),
      (group) => group.allReduce(make(stage, 'f32', 10), last ? 'max' : 'sum').finished(),
      (group) => group.broadcast(make(stage, 'f32', 10), last ? 1 : 0).finished(),
      (group) => (last ? group.barrier() : group.allReduce(make(stage, 'f32', 10)).finished()),
      // Equal sizes, meant differently: units in another order, and a unit left out.
      (group) => together((last ? [1, 0] : [0, 1]).map((unit) => gather(group, unit))),
      (group) => together((last ? [0, 2] : [0, 1, 2]).map((unit) => gather(group, unit))),
    ];
    const gather = (group: Communicator, unit: number): Promise<void> =>
      group.allGather(make(stage, 'f32', 2 * size), make(stage, 'f32', 2), `gather ${unit}`).finished();
    const inGroup = async (call: (group: Communicator) => Promise<unknown>): Promise<ErrorData | null> => {
      const group = await stage.communicator.split(0);
      const error = await errorOf(() => call(group));
      await group.close();
      return error;
    };
    const mismatches: (ErrorData | null)[] = [];
    for (const call of calls) mismatches.push(await inGroup(call));
    const closed = await inGroup(async (group) => {
      await group.allReduce(make(stage, 'f32', 1000)).finished();
      await (last ? group.close() : group.barrier());
    });
    return { mismatches, closed, after: await failing(stage, () => calls[0]!(stage.communicator)) };
  },

  /** The last rank never joins in; the test kills it. */
  async killed(stage: Stage): Promise<unknown> {
    return failing(stage, async (last) => {
      await stage.communicator.barrier();
      stage.context.say('together');
      if (last) await sleep(60_000);
      await stage.communicator.allReduce(make(stage, 'f32', 1_000_000)).finished();
    });
  },

  /** All ranks run collectives without end; the test kills the last one in the middle. */
  async killedBusy(stage: Stage): Promise<unknown> {
    return failing(stage, async () => {
      const x = make(stage, 'f32', 3_000_000);
      for (let step = 0; ; step++) {
        await stage.communicator.allReduce(x).finished();
        if (step === 5) stage.context.say('together');
      }
    });
  },

  /** The last rank is alive and silent. */
  async silent(stage: Stage): Promise<unknown> {
    return failing(stage, async (last) => {
      if (last) await sleep(4000);
      await stage.communicator.barrier();
    });
  },
};

/** What a failing call gave, what the next call and a read of the device give after it. */
export interface Failure {
  readonly first: ErrorData | null;
  readonly next: ErrorData | null;
  readonly read: ErrorData | null;
}
export interface ErrorData {
  readonly name: string;
  readonly message: string;
  readonly rank: number;
  readonly peer: number | undefined;
}

/** All of them, to their end. */
async function together(works: readonly Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(works)) if (outcome.status === 'rejected') throw outcome.reason;
}

const made = new WeakMap<Device, Tensor[]>();

/** A tensor that `failing` disposes. */
function make({ device }: Stage, dtype: DType, n: number): Tensor {
  const tensor = full(device, [n], dtype, 1);
  made.set(device, [...(made.get(device) ?? []), tensor]);
  return tensor;
}

async function failing(stage: Stage, call: (last: boolean) => Promise<unknown>): Promise<Failure> {
  const { communicator, device } = stage;
  const first = await errorOf(() => call(communicator.rank === communicator.size - 1));
  const x = full(device, [4], 'f32', 1);
  const next = await errorOf(async () => {
    const work = communicator.allReduce(x);
    work.wait();
    await work.finished();
  });
  const read = await errorOf(() => x.read());
  for (const tensor of [x, ...(made.get(device) ?? [])]) tensor.dispose();
  return { first, next, read };
}

async function errorOf(call: () => Promise<unknown>): Promise<ErrorData | null> {
  try {
    await call();
    return null;
  } catch (error) {
    const { name, message, rank, peer } = error as Error & { rank: number; peer?: number };
    return { name, message, rank, peer };
  }
}
