import { type Communicator, Device, full, ReferenceBackend, type Tensor, type Work } from '@deepspeed-ts/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CollectiveRecord } from './collective-record.js';
import { ObservedCommunicator } from './observed-communicator.js';

/** Rank 1 of four; its collectives end when the test says so. */
class Inner implements Communicator {
  readonly rank = 1;
  readonly size = 4;
  readonly calls: string[] = [];
  waits = 0;
  end: () => void = () => {};

  constructor(readonly timed: boolean) {}

  work(call: string): Work {
    this.calls.push(call);
    const ended = new Promise<void>((resolve) => (this.end = resolve));
    const timing = this.timed ? { timing: () => ({ begun: 1, met: 2, ended: 5 }) } : {};
    return { wait: () => void this.waits++, finished: () => ended, ...timing };
  }

  allReduce(...[, op, tag]: Parameters<Communicator['allReduce']>): Work {
    return this.work(`allReduce ${op} ${tag}`);
  }
  reduceScatter(...[, , op, tag]: Parameters<Communicator['reduceScatter']>): Work {
    return this.work(`reduceScatter ${op} ${tag}`);
  }
  allGather(...[, , tag]: Parameters<Communicator['allGather']>): Work {
    return this.work(`allGather ${tag}`);
  }
  broadcast(...[, root, tag]: Parameters<Communicator['broadcast']>): Work {
    return this.work(`broadcast ${root} ${tag}`);
  }
  allToAll(...[, , tag]: Parameters<Communicator['allToAll']>): Work {
    return this.work(`allToAll ${tag}`);
  }
  send(...[, to]: Parameters<Communicator['send']>): Work {
    return this.work(`send ${to}`);
  }
  recv(...[, from]: Parameters<Communicator['recv']>): Work {
    return this.work(`recv ${from}`);
  }
  async barrier(): Promise<void> {}
  async split(): Promise<Communicator> {
    return this;
  }
  async close(): Promise<void> {}
}

let device: Device;
let part: Tensor;
let whole: Tensor;
let seen: CollectiveRecord[];

function observed(timed: boolean): { inner: Inner; outer: ObservedCommunicator } {
  const inner = new Inner(timed);
  return { inner, outer: new ObservedCommunicator(inner, { seen: (record) => seen.push(record) }) };
}

beforeEach(() => {
  device = new Device(new ReferenceBackend());
  part = full(device, [6], 'f32', 1);
  whole = full(device, [24], 'f32', 1);
  seen = [];
});
afterEach(() => {
  for (const tensor of [part, whole]) tensor.dispose();
  expect(device.liveBuffers).toBe(0);
  vi.restoreAllMocks();
});

describe('an observed communicator', () => {
  it('hands every call on as it is, and tells of its message as nccl-tests count it', async () => {
    const { inner, outer } = observed(true);
    const calls: [() => Work, string, Partial<CollectiveRecord>][] = [
      [() => outer.allReduce(part, 'max', 'a'), 'allReduce max a', { op: 'all_reduce', bytes: 24, tag: 'a' }],
      [() => outer.reduceScatter(part, whole, 'mean', 'b'), 'reduceScatter mean b', { op: 'reduce_scatter', bytes: 96 }],
      [() => outer.allGather(whole, part, 'c'), 'allGather c', { op: 'all_gather', bytes: 96 }],
      [() => outer.broadcast(part, 2), 'broadcast 2 undefined', { op: 'broadcast', bytes: 24, tag: undefined }],
      [() => outer.allToAll(whole, whole, 'd'), 'allToAll d', { op: 'all_to_all', bytes: 96 }],
      [() => outer.send(part, 3), 'send 3', { op: 'send', bytes: 24 }],
      [() => outer.recv(part, 0), 'recv 0', { op: 'recv', bytes: 24 }],
    ];
    for (const [call, expected, record] of calls) {
      const work = call();
      expect(inner.calls.at(-1)).toBe(expected);
      inner.end();
      await work.finished();
      await outer.settled();
      expect(seen.at(-1)).toMatchObject({ ranks: 4, ofAll: true, timing: { begun: 1, met: 2, ended: 5 }, ...record });
    }
    await outer.barrier();
    expect(seen.at(-1)).toMatchObject({ op: 'barrier', bytes: 0 });
    expect({ rank: outer.rank, size: outer.size }).toEqual({ rank: 1, size: 4 });
  });

  it('waits for nothing where the backend takes the times', () => {
    const read = vi.spyOn(device.backend, 'readSync');
    const { inner, outer } = observed(true);
    outer.allReduce(part);
    expect({ reads: read.mock.calls.length, waits: inner.waits, seen }).toEqual({ reads: 0, waits: 0, seen: [] });
  });

  it('times a collective by waiting for it, before and after, where the backend does not', () => {
    const read = vi.spyOn(device.backend, 'readSync');
    const { inner, outer } = observed(false);
    outer.allGather(whole, part).wait();
    expect({ reads: read.mock.calls.length, waits: inner.waits }).toEqual({ reads: 2, waits: 1 });
    expect(seen).toHaveLength(1);
    const { begun, met, ended } = seen[0]!.timing;
    expect(met).toBe(begun);
    expect(ended).toBeGreaterThanOrEqual(begun);
  });

  it('tells of nothing that has failed, and leaves the error to its caller', async () => {
    const { inner, outer } = observed(true);
    inner.work = () => ({ wait() {}, finished: () => Promise.reject(new Error('lost')), timing: () => undefined });
    await expect(outer.allReduce(part).finished()).rejects.toThrow('lost');
    await outer.settled();
    expect(seen).toEqual([]);
  });
});
