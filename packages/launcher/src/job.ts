import { constants } from 'node:os';
import type { World } from './environment.js';
import { LaunchError } from './errors.js';
import type { RankExit, RankProcess } from './rank-process.js';
import type { Reaper } from './reaper-client.js';

/** The rank that failed first: the others were stopped because of it. */
export interface RankFailure extends RankExit {
  /** Milliseconds from the start of the ranks. */
  afterMs: number;
  /** Its last lines on stderr; empty when stderr was shared with this process. */
  stderrTail: string[];
  /** V8's own words when it aborted the process, such as `FATAL ERROR: ... JavaScript heap out of memory`. */
  fatalError: string | undefined;
}

export interface LaunchResult {
  /** 0 when every rank exited with 0; the first failure's code, or 128 + its signal; 128 + the signal given to {@link Job.stop}. */
  exitCode: number;
  failure: RankFailure | null;
  stoppedBy: NodeJS.Signals | null;
  /** In rank order. */
  ranks: RankExit[];
}

/** After a rank has gone, its output may still sit in a pipe that a process out of our reach holds open; wait no longer than this. */
const DRAIN_MS = 1000;

/** Running ranks that live and die together. */
export class Job {
  /** Process ids in rank order. */
  readonly pids: readonly number[];
  /** Resolves when every rank has ended and nothing that they started is left; rejects (REAPER_LOST) when the reaper was killed. */
  readonly finished: Promise<LaunchResult>;
  readonly #startedAt = Date.now();
  readonly #live: Set<RankProcess>;
  #failure: { exit: RankExit; afterMs: number } | null = null;
  #stoppedBy: NodeJS.Signals | null = null;
  #reaperLost = false;
  /** Whether we have sent SIGKILL. */
  #killed = false;
  #killTimer: NodeJS.Timeout | undefined;

  /**
   * @param world where the ranks meet
   * @param graceMs from asking ranks to stop to killing them
   */
  constructor(
    readonly world: World,
    private readonly ranks: readonly RankProcess[],
    private readonly reaper: Reaper,
    private readonly graceMs: number,
  ) {
    this.pids = ranks.map((rank) => rank.pid);
    this.#live = new Set(ranks);
    reaper.onLost = () => {
      this.#reaperLost = true;
      this.#killAll();
    };
    this.finished = this.#supervise();
  }

  /** Passes `signal` on to every rank and kills them after the grace period; a second call kills at once. */
  stop(signal: NodeJS.Signals = 'SIGTERM'): void {
    if (this.#killTimer === undefined) {
      this.#stoppedBy = signal;
      this.#stopAll(signal);
    } else {
      this.#killAll();
    }
  }

  async #supervise(): Promise<LaunchResult> {
    const exits = await Promise.all(this.ranks.map((rank) => rank.exited.then((exit) => this.#onExit(rank, exit))));
    clearTimeout(this.#killTimer);
    // Before waiting for the ends of their output: strays may hold the pipes.
    await this.reaper.finish();
    await Promise.all(this.ranks.map((rank) => rank.drained(DRAIN_MS)));
    if (this.#reaperLost) {
      throw new LaunchError(
        'REAPER_LOST',
        'The process that guards the ranks was killed, so the ranks were killed too: unguarded they could outlive the launcher.',
      );
    }
    return { exitCode: this.#exitCode(), failure: this.#describeFailure(), stoppedBy: this.#stoppedBy, ranks: exits };
  }

  #describeFailure(): RankFailure | null {
    if (this.#failure === null) return null;
    const { exit, afterMs } = this.#failure;
    const { stderrTail, fatalError } = this.ranks[exit.rank]!;
    return { ...exit, afterMs, stderrTail, fatalError };
  }

  #onExit(rank: RankProcess, exit: RankExit): RankExit {
    this.#live.delete(rank);
    // What it leaves in its group is an orphan. The group's number can be given to a stranger once it is empty, so nobody keeps it.
    rank.signal('SIGKILL');
    this.reaper.forget(exit.pid);
    const afterMs = Date.now() - this.#startedAt;
    if (this.#failure !== null) {
      // A rank killed for its memory dies slowly, page by page; a peer that missed it may have exited with an error before.
      const killedByOthers = exit.signal === 'SIGKILL' && !this.#killed;
      if (killedByOthers && this.#failure.exit.signal === null) this.#failure = { exit, afterMs };
    } else if (exit.code !== 0 && this.#killTimer === undefined && !this.#killed) {
      this.#failure = { exit, afterMs };
      this.#stopAll('SIGTERM');
    }
    return exit;
  }

  #stopAll(signal: NodeJS.Signals): void {
    if (this.#live.size === 0) return;
    this.#killTimer = setTimeout(() => this.#killAll(), this.graceMs);
    for (const rank of this.#live) rank.signal(signal);
  }

  #killAll(): void {
    this.#killed = true;
    for (const rank of this.#live) rank.signal('SIGKILL');
  }

  #exitCode(): number {
    if (this.#failure !== null) return this.#failure.exit.code ?? 128 + signalNumber(this.#failure.exit.signal);
    return this.#stoppedBy === null ? 0 : 128 + signalNumber(this.#stoppedBy);
  }
}

function signalNumber(signal: NodeJS.Signals | null): number {
  return signal === null ? 0 : (constants.signals[signal] ?? 0);
}
