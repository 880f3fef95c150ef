import { Device, hostTensor, ReferenceBackend, type Tensor, type Work, WorldOfOne, write } from '@deepspeed-ts/core';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Log } from '../log.js';
import { busFactor, COLLECTIVES, type CollectiveRecord } from './collective-record.js';
import { type CommsLoggerConfig, CommunicationLog } from './communication-log.js';
import { ObservedCommunicator } from './observed-communicator.js';

afterEach(() => void vi.restoreAllMocks());

const config: CommsLoggerConfig = { enabled: true, verbose: false, prof_all: true, prof_ops: [], debug: false };

function logOf(settings: Partial<CommsLoggerConfig> = {}): CommunicationLog {
  return new CommunicationLog({ ...config, ...settings }, new Log(0, null), new Device(new ReferenceBackend()));
}

/** Rank 0 of two; what rank 1 would say in a summary is given. */
class WithPeer extends WorldOfOne {
  override readonly size = 2 as never;

  constructor(
    readonly peer: readonly number[],
    readonly timed: boolean,
  ) {
    super();
  }

  override allGather(output: Tensor, input: Tensor): Work {
    write(output, hostTensor(output.shape, 'f32', [...input.readSync().data, ...this.peer]));
    return { wait() {}, async finished() {} };
  }
}

/** Starts at 100 ms, waits for other ranks and then moves bytes. */
function record(settings: Partial<CollectiveRecord> & { waits?: number; moves?: number } = {}): CollectiveRecord {
  const { waits = 0, moves = 1, ...rest } = settings;
  const timing = { begun: 100, met: 100 + waits, ended: 100 + waits + moves };
  return { op: 'all_reduce', tag: undefined, bytes: 1e6, ranks: 4, ofAll: true, timing, ...rest };
}

describe('the communication log', () => {
  it('adds up collectives of one kind and size', () => {
    const log = logOf();
    log.seen(record({ waits: 2, moves: 4 }));
    log.seen(record({ waits: 0, moves: 6 }));
    log.seen(record({ bytes: 10 }));
    log.seen(record({ op: 'all_gather' }));
    const [gather, small, large] = log.rows().sort((a, b) => a.op.localeCompare(b.op) || a.bytes - b.bytes);
    expect(large).toMatchObject({ op: 'all_reduce', bytes: 1e6, count: 2, totalMs: 12, meanMs: 6, waitMs: 1 });
    expect(small).toMatchObject({ op: 'all_reduce', bytes: 10, count: 1 });
    expect(gather).toMatchObject({ op: 'all_gather', count: 1 });
  });

  it('gives bandwidth while bytes move, waiting for other ranks left out, in the conventions of nccl-tests', () => {
    // 1 MB in 1 ms is 1 GB/s.
    const bus = { all_reduce: 1.5, reduce_scatter: 0.75, all_gather: 0.75, all_to_all: 0.75, broadcast: 1, send: 1, recv: 1 } as const;
    for (const [op, factor] of Object.entries(bus)) {
      const log = logOf();
      log.seen(record({ op: op as keyof typeof bus, waits: 50 }));
      expect(log.rows()[0]!.algorithmGBps, op).toBeCloseTo(1, 12);
      expect(log.rows()[0]!.busGBps, op).toBeCloseTo(factor, 12);
    }
    for (const op of COLLECTIVES) expect(busFactor(op, 1), op).toBeLessThanOrEqual(1);
  });

  it('keeps to the operations it is asked for, under any name that DeepSpeed has for them', () => {
    const log = logOf({ prof_all: false, prof_ops: ['all_gather_into_tensor', 'broadcast'] });
    for (const op of COLLECTIVES) log.seen(record({ op }));
    expect(log.rows().map(({ op }) => op)).toEqual(['all_gather', 'broadcast']);
  });

  it('tells collectives apart by what they are for with debug', () => {
    const rows = (debug: boolean) => {
      const log = logOf({ debug });
      for (const tag of ['reduce 0', 'reduce 1', 'reduce 1']) log.seen(record({ tag }));
      return log.rows().map(({ tag, count }) => ({ tag, count }));
    };
    expect(rows(false)).toEqual([{ tag: undefined, count: 3 }]);
    expect(rows(true)).toEqual([
      { tag: 'reduce 0', count: 1 },
      { tag: 'reduce 1', count: 2 },
    ]);
  });

  it.each([
    ['how long each rank waits, where the backend tells', true, [1, 7], { spreadMs: 3, lastRank: 1 }, { spreadMs: 2, lastRank: 0 }],
    ['how long it takes each rank, elsewhere', false, [6, 7], { spreadMs: 2, lastRank: 1 }, { spreadMs: 1, lastRank: 0 }],
  ])('finds who comes last, and by how much, from %s', async (_, timed, peer, gather, barrier) => {
    vi.spyOn(console, 'log').mockImplementation(() => {});
    const log = logOf();
    log.attach(new ObservedCommunicator(new WithPeer(peer, timed), log));
    for (const waits of [3, 5]) log.seen(record({ op: 'all_gather', waits, moves: 4 }));
    log.seen(record({ op: 'barrier', bytes: 0, waits: 5, moves: 1 }));
    log.seen(record({ op: 'send', waits: 9 }));
    log.seen(record({ op: 'all_reduce', ofAll: false }));
    const rows = await log.summary();
    expect(rows.find(({ op }) => op === 'all_gather')).toMatchObject(gather);
    expect(rows.find(({ op }) => op === 'barrier')).toMatchObject(barrier);
    // What not all ranks take part in can't be compared.
    for (const op of ['send', 'all_reduce']) expect(rows.find((row) => row.op === op)).not.toHaveProperty('spreadMs');
  });

  it('says each one as it happens when it is verbose', () => {
    const said = vi.spyOn(console, 'log').mockImplementation(() => {});
    logOf({ verbose: true }).seen(record({ tag: 'reduce 3', waits: 0.5, bytes: 2048 }));
    expect(said.mock.calls).toEqual([["comm all_reduce 'reduce 3'  2.00 KiB  1.500 ms, 0.500 ms of it for other ranks"]]);
  });
});
