import type { Tensor } from '@deepspeed-ts/core';

/** Milliseconds of one step, averaged since the last report: forward and backward over all its micro-batches. */
export interface WallClockBreakdown {
  readonly forward: number;
  readonly backward: number;
  readonly step: number;
}

export type Phase = keyof WallClockBreakdown;

/**
 * Where the time of a step goes. Work is queued and runs beside JavaScript, so an honest time ends with waiting for the device: that
 * takes away overlap and costs speed, and is done only where `wall_clock_breakdown` asks for it.
 */
export class WallClock {
  readonly #milliseconds = { forward: 0, backward: 0, step: 0 };
  #steps = 0;

  /** Times `body` and what it queues. `probe` is any tensor that is alive after it: reading one waits for everything before. */
  time<T>(phase: Phase, body: () => T, probe: (result: T) => Tensor): T {
    const start = performance.now();
    const result = body();
    probe(result).readSync();
    this.#milliseconds[phase] += performance.now() - start;
    if (phase === 'step') this.#steps++;
    return result;
  }

  /** The averages since the last call; `undefined` when no step has ended since. */
  take(): WallClockBreakdown | undefined {
    const steps = this.#steps;
    if (steps === 0) return undefined;
    const { forward, backward, step } = this.#milliseconds;
    for (const phase of ['forward', 'backward', 'step'] as const) this.#milliseconds[phase] = 0;
    this.#steps = 0;
    return { forward: forward / steps, backward: backward / steps, step: step / steps };
  }
}
