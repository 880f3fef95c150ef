/** How much is said; as DeepSpeed's `log_level`. */
export const LOG_LEVELS = ['debug', 'info', 'warning', 'error', 'critical'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** What a run says to people: on rank 0 only, from a level on. */
export class Log {
  readonly #from: number;

  constructor(
    readonly rank: number,
    level: LogLevel | null,
  ) {
    this.#from = LOG_LEVELS.indexOf(level ?? 'info');
  }

  info(text: string): void {
    if (this.#says('info')) console.log(text);
  }

  warn(text: string): void {
    if (this.#says('warning')) console.warn(text);
  }

  #says(level: LogLevel): boolean {
    return this.rank === 0 && LOG_LEVELS.indexOf(level) >= this.#from;
  }
}
