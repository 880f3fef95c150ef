import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CollectiveRecord } from './comms/collective-record.js';
import type { CollectiveListener } from './comms/observed-communicator.js';
import type { Span } from './profile/module-clock.js';

export interface TraceConfig {
  readonly enabled: boolean;
  readonly path: string;
  readonly start_step: number;
  readonly steps: number;
}

/** An entry of the Trace Event Format, which chrome://tracing and Perfetto read. Times in microseconds. */
interface TraceEvent {
  readonly name: string;
  readonly cat?: string;
  /** X: from `ts` for `dur`; b and e: an asynchronous one, by `id`; M: a name. */
  readonly ph: 'X' | 'b' | 'e' | 'M';
  readonly ts?: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly id?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

const COMPUTE = 1;
const COMMUNICATION = 2;

/**
 * Some steps of one rank as a trace: phases with the units in them on one line, collectives on another. A process of the trace is a rank.
 * Times are those of the wall clock, so ranks of one machine line up when their files are opened together.
 */
export class Trace implements CollectiveListener {
  readonly #events: TraceEvent[] = [];
  readonly #path: string;
  #transfers = 0;
  /** When it began, in milliseconds of `performance.now()`; undefined while nothing is recorded. */
  #since: number | undefined;

  constructor(
    readonly config: TraceConfig,
    readonly rank: number,
  ) {
    this.#path = join(config.path, `trace-rank${rank}.json`);
    this.#name('process_name', COMPUTE, `rank ${rank}`);
    this.#name('thread_name', COMPUTE, 'compute');
    this.#name('thread_name', COMMUNICATION, 'communication');
  }

  get recording(): boolean {
    return this.#since !== undefined;
  }

  start(): void {
    this.#since ??= performance.now();
  }

  stop(): void {
    this.#since = undefined;
  }

  /** Whether the step that begins after this many is traced. */
  covers(stepsBefore: number): boolean {
    const { start_step: first, steps } = this.config;
    return stepsBefore >= first && stepsBefore < first + steps;
  }

  phase(name: string, begun: number, ended: number, step: number): void {
    this.#add(name, 'phase', COMPUTE, begun, ended, { step });
  }

  span({ name, pass, begun, ended }: Span): void {
    if (this.recording) this.#add(name, pass, COMPUTE, begun, ended);
  }

  seen({ op, tag, bytes, ranks, timing }: CollectiveRecord): void {
    const { begun, met, ended } = timing;
    // Collectives are heard of after they ended: these were of the step before.
    if (this.#since === undefined || begun < this.#since) return;
    const name = tag ? `${op} ${tag}` : op;
    const args = { bytes, ranks };
    // Sends and receives run beside each other; a line can't hold what overlaps.
    if (op === 'send' || op === 'recv') {
      const id = ++this.#transfers;
      for (const [ph, at] of [
        ['b', begun],
        ['e', ended],
      ] as const)
        this.#events.push({ name, cat: op, ph, id, ts: microseconds(at), pid: this.rank, tid: COMMUNICATION, args });
      return;
    }
    this.#add(name, 'collective', COMMUNICATION, begun, ended, args);
    if (met > begun) this.#add('waiting for other ranks', 'wait', COMMUNICATION, begun, met);
  }

  /** Writes the file, whole or not at all. */
  async write(): Promise<string> {
    await mkdir(this.config.path, { recursive: true });
    const text = JSON.stringify({ traceEvents: this.#events, displayTimeUnit: 'ms' });
    await writeFile(`${this.#path}.partial`, text);
    await rename(`${this.#path}.partial`, this.#path);
    return this.#path;
  }

  #name(what: string, tid: number, name: string): void {
    this.#events.push({ name: what, ph: 'M', pid: this.rank, tid, args: { name } });
  }

  #add(name: string, cat: string, tid: number, begun: number, ended: number, args?: Readonly<Record<string, unknown>>): void {
    const [ts, end] = [microseconds(begun), microseconds(ended)];
    this.#events.push({ name, cat, ph: 'X', ts, dur: end - ts, pid: this.rank, tid, ...(args && { args }) });
  }
}

/** Of the wall clock, whole: what nests in doubles then nests in the file. */
function microseconds(at: number): number {
  return Math.round((performance.timeOrigin + at) * 1000);
}
