import { type Communicator, type Device, tensor } from '@deepspeed-ts/core';
import type { Log } from '../log.js';
import { busFactor, COLLECTIVES, type CollectiveName, type CollectiveRecord } from './collective-record.js';
import { formatRecord, formatSummary } from './comms-table.js';
import type { CollectiveListener, ObservedCommunicator } from './observed-communicator.js';

/** What `comms_logger` of the config says. */
export interface CommsLoggerConfig {
  readonly enabled: boolean;
  readonly verbose: boolean;
  readonly prof_all: boolean;
  readonly prof_ops: readonly string[];
  readonly debug: boolean;
}

/** All collectives of one kind and message size. */
export interface CommunicationRow {
  readonly op: CollectiveName;
  /** What they were for; only with `debug`. */
  readonly tag?: string;
  /** Bytes of one message; see {@link CollectiveRecord.bytes}. */
  readonly bytes: number;
  readonly count: number;
  /** Milliseconds on this rank from being ready to the end, all together and for one. */
  readonly totalMs: number;
  readonly meanMs: number;
  /** Milliseconds that this rank waits for the last one to come, in the mean; 0 where the backend does not tell. */
  readonly waitMs: number;
  /** Gigabytes (10^9) per second: bytes / time without waiting, and times {@link busFactor}. */
  readonly algorithmGBps: number;
  readonly busGBps: number;
  /** How far apart ranks come to it in the mean, in milliseconds, and who comes last. Collectives of all ranks only. */
  readonly spreadMs?: number;
  readonly lastRank?: number;
}

interface Sums {
  readonly first: CollectiveRecord;
  count: number;
  total: number;
  waited: number;
}

/** Adds up what collectives cost, by kind and message size (`comms_logger`). */
export class CommunicationLog implements CollectiveListener {
  readonly #sums = new Map<string, Sums>();
  readonly #wanted: ReadonlySet<string> | undefined;
  #communicator: ObservedCommunicator | undefined;

  constructor(
    readonly config: CommsLoggerConfig,
    readonly log: Log,
    readonly device: Device,
  ) {
    this.#wanted = config.prof_all ? undefined : new Set(config.prof_ops.map(plainName));
  }

  /** The communicator that this log hears. */
  attach(communicator: ObservedCommunicator): void {
    this.#communicator = communicator;
  }

  seen(record: CollectiveRecord): void {
    const { op, tag, bytes, ranks, ofAll, timing } = record;
    if (this.#wanted && !this.#wanted.has(op)) return;
    const key = [op, bytes, ranks, ofAll, this.config.debug ? tag : ''].join();
    const sums = this.#sums.get(key) ?? { first: record, count: 0, total: 0, waited: 0 };
    this.#sums.set(key, sums);
    sums.count++;
    sums.total += timing.ended - timing.begun;
    sums.waited += timing.met - timing.begun;
    if (this.config.verbose) this.log.info(formatRecord(record));
  }

  /** What this rank knows by itself. */
  rows(): CommunicationRow[] {
    return this.#ordered().map((sums) => this.#row(sums));
  }

  /**
   * Says on rank 0 what all collectives so far cost, and gives the rows on every rank. Every rank calls it: it compares when ranks came
   * to their collectives.
   */
  async summary(): Promise<CommunicationRow[]> {
    await this.#communicator?.settled();
    const together = this.#ordered().filter(({ first }) => first.ofAll && first.op !== 'send' && first.op !== 'recv');
    const timed = this.#communicator?.timed ?? false;
    // Who waits least came last. Where only the whole time is known, it ends for all at once: who needs least of it came last, too.
    const own = together.map(({ count, total, waited }) => (timed ? waited : total) / count);
    const all = own.length > 0 ? await gathered(this.#communicator!.unobserved, this.device, own) : [];
    const rows = this.#ordered().map((sums): CommunicationRow => {
      const i = together.indexOf(sums);
      if (i < 0) return this.#row(sums);
      const times = all.map((ofRank) => ofRank[i]!);
      const least = Math.min(...times);
      return { ...this.#row(sums), spreadMs: Math.max(...times) - least, lastRank: times.indexOf(least) };
    });
    this.log.info(formatSummary(rows));
    return rows;
  }

  #ordered(): Sums[] {
    const rankOf = ({ op }: CollectiveRecord) => COLLECTIVES.indexOf(op);
    return [...this.#sums.values()].sort(
      ({ first: a }, { first: b }) => rankOf(a) - rankOf(b) || a.bytes - b.bytes || a.ranks - b.ranks || compare(a.tag ?? '', b.tag ?? ''),
    );
  }

  #row({ first, count, total, waited }: Sums): CommunicationRow {
    const { op, bytes, ranks, tag } = first;
    const moving = (total - waited) / count;
    const algorithmGBps = moving > 0 ? bytes / moving / 1e6 : 0;
    return {
      op,
      ...(this.config.debug && tag && { tag }),
      bytes,
      count,
      totalMs: total,
      meanMs: total / count,
      waitMs: waited / count,
      algorithmGBps,
      busGBps: algorithmGBps * busFactor(op, ranks),
    };
  }
}

/** The same on every machine, whatever its language. */
function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

/** DeepSpeed has several calls for what is one here: `all_gather_into_tensor` is `all_gather`. */
function plainName(op: string): string {
  return op.replace(/(_into_tensor|_tensor|_single|_base|_coalesced)$/, '');
}

/** Everybody's numbers, by rank. */
async function gathered(communicator: Communicator, device: Device, own: readonly number[]): Promise<number[][]> {
  const { rank, size } = communicator;
  const values = Array.from({ length: size * own.length }, (_, i) => own[i - rank * own.length] ?? 0);
  const all = tensor(device, values, 'f32', [values.length], { kind: 'communication' });
  try {
    const mine = all.narrow(rank * own.length, own.length).keep();
    communicator.allGather(all, mine, 'communication summary').wait();
    mine.dispose();
    const { data } = await all.read();
    return Array.from({ length: size }, (_, r) => [...data.slice(r * own.length, (r + 1) * own.length)]);
  } finally {
    all.dispose();
  }
}
