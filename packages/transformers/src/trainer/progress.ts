import type { ResolvedArguments } from './arguments.js';
import type { CallbackContext, TrainerCallback, TrainerControl } from './callbacks.js';
import type { LogEntry, TrainerState } from './state.js';

const WIDTH = 24;
/** The bar is drawn at most this often. */
const REDRAW_MS = 100;

/** Where it is drawn and where lines of JSON go. */
export interface ProgressStreams {
  readonly terminal: { readonly isTTY?: boolean; readonly columns?: number; write(text: string): unknown };
  readonly lines: { write(text: string): unknown };
}

/** A bar that follows the steps of rank 0 on a terminal, on stderr; elsewhere a line of JSON on stdout for everything that is logged. */
export class ProgressCallback implements TrainerCallback {
  readonly #streams: ProgressStreams;
  #bar = false;
  #begun = { time: 0, step: 0 };
  #drawn = 0;
  #loss: number | undefined;

  constructor(streams: ProgressStreams = { terminal: process.stderr, lines: process.stdout }) {
    this.#streams = streams;
  }

  onTrainBegin({ disableTqdm }: ResolvedArguments, state: TrainerState): void {
    this.#bar = state.isWorldProcessZero && !(disableTqdm ?? this.#streams.terminal.isTTY !== true);
    this.#begun = { time: performance.now(), step: state.globalStep };
  }

  onStepEnd(_args: ResolvedArguments, state: TrainerState, _control: TrainerControl, { engine }: CallbackContext): void {
    const now = performance.now();
    if (!this.#bar || (now - this.#drawn < REDRAW_MS && state.globalStep < state.maxSteps)) return;
    this.#drawn = now;
    const { peak } = engine.device.backend.memory();
    const line = progressLine(state, { elapsed: now - this.#begun.time, since: this.#begun.step, loss: this.#loss, peak });
    // A line that wraps could not be written over.
    this.#streams.terminal.write(`\r${line.slice(0, (this.#streams.terminal.columns ?? 80) - 1)}\x1b[K`);
  }

  onLog(_args: ResolvedArguments, state: TrainerState, _control: TrainerControl, { logs }: CallbackContext): void {
    if (!state.isWorldProcessZero || !logs) return;
    this.#loss = logs.loss ?? this.#loss;
    if (this.#bar) this.#streams.terminal.write(`\r${textOf(logs)}\x1b[K\n`);
    else this.#streams.lines.write(`${JSON.stringify({ ...logs, step: state.globalStep })}\n`);
  }

  onTrainEnd(): void {
    if (this.#bar) this.#streams.terminal.write('\n');
    this.#bar = false;
  }
}

interface Pace {
  /** Milliseconds since training began, at step `since`. */
  readonly elapsed: number;
  readonly since: number;
  readonly loss: number | undefined;
  /** Bytes. */
  readonly peak: number;
}

/** ' 42% |##########--------------|  21/50  3.2 steps/s  0:09 left  loss 2.314  peak 812 MiB' */
export function progressLine({ globalStep: step, maxSteps }: TrainerState, { elapsed, since, loss, peak }: Pace): string {
  const share = maxSteps === 0 ? 1 : step / maxSteps;
  const done = Math.round(WIDTH * share);
  const rate = elapsed > 0 ? ((step - since) / elapsed) * 1000 : 0;
  const left = rate > 0 ? Math.round((maxSteps - step) / rate) : undefined;
  const parts = [
    `${String(Math.floor(100 * share)).padStart(3)}% |${'#'.repeat(done)}${'-'.repeat(WIDTH - done)}|`,
    `${step}/${maxSteps}`,
    rate >= 1 || rate === 0 ? `${rate.toFixed(1)} steps/s` : `${(1 / rate).toFixed(1)} s/step`,
    ...(left === undefined ? [] : [`${clock(left)} left`]),
    ...(loss === undefined ? [] : [`loss ${loss.toFixed(3)}`]),
    `peak ${(peak / 2 ** 20).toFixed(0)} MiB`,
  ];
  return parts.join('  ');
}

function clock(seconds: number): string {
  const two = (n: number) => String(n).padStart(2, '0');
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

function textOf(logs: LogEntry): string {
  return Object.entries(logs)
    .map(([name, value]) => `${name} ${Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(2) : Number(value.toFixed(4))}`)
    .join('  ');
}
