import { join } from 'node:path';
import { DeepSpeedError } from '@deepspeed-ts/core';
import type { Log } from '../log.js';
import { CsvMonitor } from './csv.js';
import type { Monitor, ScalarEvent } from './monitor.js';
import { TensorBoardMonitor } from './tensorboard.js';

/** A monitor's section of the config. */
export interface MonitorConfig {
  readonly enabled: boolean;
  readonly output_path: string;
  readonly job_name: string;
  readonly fail_on_error: boolean;
}

export interface MonitorsConfig {
  readonly tensorboard: MonitorConfig;
  readonly csv_monitor: MonitorConfig;
}

/** The monitors of a run, on its rank 0. What one can't write is said once and does not stop training, unless its config wants that. */
export class Monitors {
  readonly #monitors: Monitor[] = [];
  readonly #log: Log;
  readonly #said = new Set<string>();
  #fatal: DeepSpeedError | undefined;

  constructor({ tensorboard, csv_monitor: csv }: MonitorsConfig, log: Log) {
    this.#log = log;
    const failed = (name: string, config: MonitorConfig) => (error: unknown) => this.#failed(name, config, error);
    if (tensorboard.enabled) this.#monitors.push(new TensorBoardMonitor(directoryOf(tensorboard), failed('tensorboard', tensorboard)));
    if (csv.enabled) this.#monitors.push(new CsvMonitor(directoryOf(csv), failed('csv_monitor', csv)));
  }

  get any(): boolean {
    return this.#monitors.length > 0;
  }

  /** @throws DeepSpeedError where an earlier write failed and `fail_on_error` is set */
  write(events: readonly ScalarEvent[]): void {
    if (this.#fatal) throw this.#fatal;
    for (const monitor of this.#monitors) monitor.write(events);
  }

  /** Resolves once everything is on disk. @throws as `write` */
  async flush(): Promise<void> {
    await Promise.all(this.#monitors.map((monitor) => monitor.flush()));
    if (this.#fatal) throw this.#fatal;
  }

  #failed(name: string, { fail_on_error, output_path }: MonitorConfig, error: unknown): void {
    const message = `[${name}] values could not be written to output_path '${output_path}': ${(error as Error).message}`;
    if (fail_on_error) this.#fatal ??= new DeepSpeedError('ERR_MONITOR', message, { cause: error });
    else if (!this.#said.has(name)) this.#log.warn(`${message}. Training goes on; "fail_on_error": true would stop it`);
    this.#said.add(name);
  }
}

/** As DeepSpeed: an empty output_path is the working directory. */
function directoryOf({ output_path, job_name }: MonitorConfig): string {
  return join(output_path, job_name);
}
