import type { Device, MemoryKind } from '@deepspeed-ts/core';
import type { CheckpointTimes } from './activation-checkpointing.js';
import type { WallClockBreakdown } from './wall-clock.js';

/** What the engine knows of itself after a step. */
export interface EngineReport {
  readonly step: number;
  /** Of the last micro-batch on this rank, or of the whole step when `trainBatch` ran it. */
  readonly loss: number;
  readonly gradNorm: number;
  readonly lr: number;
  /** Over all ranks, since the last report. */
  /** 1 but for fp16. */
  readonly lossScale: number;
  readonly skippedSteps: number;
  readonly samplesPerSecond: number;
  /** Bytes of this rank by kind, now and at most since the start. */
  readonly memory: Readonly<Record<MemoryKind, { readonly live: number; readonly peak: number }>>;
  /** Bytes that this rank took from the system, and its highest use. */
  readonly device: { readonly reserved: number; readonly peak: number };
  /** With `wall_clock_breakdown`, once a step has ended since the last report. */
  readonly wallClock?: WallClockBreakdown;
  /** With `activation_checkpointing.profile`, likewise. */
  readonly checkpoints?: CheckpointTimes;
}

const KINDS = ['parameters', 'gradients', 'optimizer', 'activations', 'communication', 'data', 'host'] as const;

export function memoryByKind(device: Device): EngineReport['memory'] {
  return Object.fromEntries(KINDS.map((kind) => [kind, device.memory(kind)])) as unknown as EngineReport['memory'];
}

/** One line for people. */
export function formatReport({
  step,
  loss,
  gradNorm,
  lr,
  lossScale,
  skippedSteps,
  samplesPerSecond,
  device,
  wallClock,
  checkpoints,
}: EngineReport): string {
  const mebibytes = (device.peak / 2 ** 20).toFixed(0);
  const scaling = lossScale === 1 && skippedSteps === 0 ? '' : `  loss scale ${lossScale}  skipped ${skippedSteps}`;
  const recomputed = checkpoints
    ? `  checkpoints forward ${checkpoints.forward.toFixed(1)} ms, backward ${checkpoints.backward.toFixed(1)} ms`
    : '';
  const phases = Object.entries(wallClock ?? {}).map(([phase, ms]) => `  ${phase} ${ms.toFixed(1)} ms`);
  return `step ${step}  loss ${loss.toFixed(4)}  grad norm ${gradNorm.toFixed(3)}  lr ${lr.toExponential(2)}${scaling}  ${samplesPerSecond.toFixed(1)} samples/s  peak ${mebibytes} MiB/rank${phases.join('')}${recomputed}`;
}

/** Counts samples against the clock. */
export class Throughput {
  #samples = 0;
  #since = performance.now();

  add(samples: number): void {
    this.#samples += samples;
  }

  /** Samples per second since the last call. */
  take(): number {
    const now = performance.now();
    const rate = (this.#samples * 1000) / Math.max(now - this.#since, 1e-9);
    this.#samples = 0;
    this.#since = now;
    return rate;
  }
}
