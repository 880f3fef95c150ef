/** What is told of a step. With --json these are the keys of its line. */
export interface StepReport {
  readonly step: number;
  /** In nats a token, over all ranks and micro-batches of the step. */
  readonly loss: number;
  readonly val_loss?: number;
  readonly grad_norm: number;
  /** That the step was made with. */
  readonly lr: number;
  /** Over all ranks. */
  readonly tokens_per_s: number;
  /** Seconds that the remaining steps will take. */
  readonly eta_s: number;
  /** Highest use of each rank so far, in MiB. */
  readonly memory_mib?: readonly number[];
}

export interface ProgressOptions {
  /** Only rank 0 writes. */
  readonly rank: number;
  readonly steps: number;
  readonly json: boolean;
}

/** Writes reports: JSON lines, or a line that follows the steps on a terminal, or now and then a line in a file. */
export class Progress {
  readonly #options: ProgressOptions;
  readonly #terminal = process.stdout.isTTY === true;

  constructor(options: ProgressOptions) {
    this.#options = options;
  }

  report(report: StepReport): void {
    const { rank, steps, json } = this.#options;
    if (rank !== 0) return;
    if (json) {
      process.stdout.write(`${JSON.stringify(report)}\n`);
      return;
    }
    const { step, val_loss } = report;
    const lasting = val_loss !== undefined || step === 1 || (!this.#terminal && step % Math.max(1, Math.round(steps / 20)) === 0);
    const line = formatReport(report, steps);
    // A line that wraps could not be written over.
    const room = lasting ? undefined : process.stdout.columns - 1;
    if (this.#terminal) process.stdout.write(`\r${line.slice(0, room)}\x1b[K${lasting ? '\n' : ''}`);
    else if (lasting) process.stdout.write(`${line}\n`);
  }

  /** A message for people. With --json it goes to stderr: stdout is for programs then. */
  say(text: string): void {
    const { rank, json } = this.#options;
    if (rank === 0) (json ? process.stderr : process.stdout).write(`${text}\n`);
  }
}

/** One line for people. */
export function formatReport(report: StepReport, steps: number): string {
  const { step, loss, val_loss, grad_norm, lr, tokens_per_s, eta_s, memory_mib } = report;
  const parts = [
    `step ${String(step).padStart(String(steps).length)}/${steps}`,
    `loss ${loss.toFixed(4)}`,
    ...(val_loss === undefined ? [] : [`val loss ${val_loss.toFixed(4)}`]),
    `grad norm ${grad_norm.toFixed(2)}`,
    `lr ${lr.toExponential(2)}`,
    `${formatCount(tokens_per_s)} tokens/s`,
    ...(memory_mib ? [`${memory_mib.map((mib) => mib.toFixed(1)).join(' + ')} MiB`] : []),
    ...(step < steps ? [`${formatSeconds(eta_s)} left`] : []),
  ];
  return parts.join('  ');
}

/** Seconds a step takes, smoothed over about ten steps. The clock stands still outside of steps. */
export class Pace {
  #seconds = Number.NaN;

  async time<T>(step: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await step();
    const seconds = (performance.now() - start) / 1000;
    this.#seconds = Number.isNaN(this.#seconds) ? seconds : 0.9 * this.#seconds + 0.1 * seconds;
    return result;
  }

  get secondsPerStep(): number {
    return this.#seconds;
  }
}

function formatCount(value: number): string {
  return value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : value.toFixed(0);
}

function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
