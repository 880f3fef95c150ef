import type { Device, MemoryKind } from '@deepspeed-ts/core';
import type { ReportedRates } from '../observe/observability.js';
import { bytesText } from '../observe/table.js';
import type { CheckpointTimes } from './activation-checkpointing.js';
import type { WallClockBreakdown } from './wall-clock.js';

/** What the engine knows of itself after a step. */
export interface EngineReport extends ReportedRates {
  readonly step: number;
  /** Of the last micro-batch on this rank, or of the whole step when `trainBatch` ran it. */
  readonly loss: number;
  readonly gradNorm: number;
  readonly lr: number;
  /** 1 but for fp16. */
  readonly lossScale: number;
  readonly skippedSteps: number;
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

/** What of a report is shown. */
export interface ReportFormat {
  /** Samples and tokens per second, MFU and the time left. Default true. */
  readonly rates?: boolean;
  /** A line for the memory of each kind. Default false. */
  readonly memory?: boolean;
}

/** One line for people, and one for each kind of memory where that is wanted. */
export function formatReport(report: EngineReport, { rates = true, memory = false }: ReportFormat = {}): string {
  const { step, loss, gradNorm, lr, lossScale, skippedSteps, device, wallClock, checkpoints } = report;
  const mebibytes = (device.peak / 2 ** 20).toFixed(0);
  const scaling = lossScale === 1 && skippedSteps === 0 ? '' : `  loss scale ${lossScale}  skipped ${skippedSteps}`;
  const recomputed = checkpoints
    ? `  checkpoints forward ${checkpoints.forward.toFixed(1)} ms, backward ${checkpoints.backward.toFixed(1)} ms`
    : '';
  const phases = Object.entries(wallClock ?? {}).map(([phase, ms]) => `  ${phase} ${ms.toFixed(1)} ms`);
  return `step ${step}  loss ${loss.toFixed(4)}  grad norm ${gradNorm.toFixed(3)}  lr ${lr.toExponential(2)}${scaling}${rates ? formatRates(report) : ''}  peak ${mebibytes} MiB/rank${timeLeft(rates ? report.secondsLeft : undefined)}${phases.join('')}${recomputed}${memory ? memoryLines(report) : ''}`;
}

function formatRates({ mfu, tokensPerSecond, samplesPerSecond }: EngineReport): string {
  const tokens = tokensPerSecond === undefined ? '' : `  ${tokensPerSecond.toFixed(0)} tokens/s`;
  return `${mfu === undefined ? '' : `  MFU ${(100 * mfu).toFixed(1)}%`}${tokens}  ${samplesPerSecond.toFixed(1)} samples/s`;
}

/** '  1h02m left' */
function timeLeft(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return '';
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours > 0 ? `  ${hours}h${String(minutes).padStart(2, '0')}m left` : `  ${minutes}m${String(rest).padStart(2, '0')}s left`;
}

function memoryLines({ memory, device }: EngineReport): string {
  const kinds = Object.entries(memory).map(
    ([kind, { live, peak }]) => `\n  ${kind.padEnd(14)} ${bytesText(live)}, at most ${bytesText(peak)}`,
  );
  return `${kinds.join('')}\n  ${'device'.padEnd(14)} ${bytesText(device.reserved)} reserved, at most ${bytesText(device.peak)} in use`;
}
