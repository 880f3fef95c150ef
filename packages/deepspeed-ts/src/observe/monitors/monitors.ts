import { join } from 'node:path';
import { DeepSpeedError } from '@deepspeed-ts/core';
import type { Log } from '../log.js';
import { CsvMonitor } from './csv.js';
import type { Monitor, ScalarEvent } from './monitor.js';
import { TensorBoardMonitor } from './tensorboard.js';
import { WandbMonitor } from './wandb.js';

/** A monitor's section of the config. */
interface MonitorConfig {
  readonly enabled: boolean;
  readonly output_path: string;
  readonly fail_on_error: boolean;
}

interface JobConfig extends MonitorConfig {
  readonly job_name: string;
}

interface WandbConfig extends MonitorConfig {
  readonly group: string | null;
  readonly team: string | null;
  readonly project: string;
}

/** The config of a run, as far as monitors know it. */
export interface MonitorsConfig {
  readonly tensorboard: JobConfig;
  readonly csv_monitor: JobConfig;
  readonly wandb: WandbConfig;
}

/** The monitors of a run, on its rank 0. What one can't write is said once and does not stop training, unless its config wants that. */
export class Monitors {
  readonly #monitors: Monitor[] = [];
  readonly #log: Log;
  readonly #said = new Set<string>();
  #fatal: DeepSpeedError | undefined;

  constructor(config: MonitorsConfig, log: Log) {
    const { tensorboard, csv_monitor: csv, wandb } = config;
    this.#log = log;
    const failed = (name: string, section: MonitorConfig) => (error: unknown) => this.#failed(name, section, error);
    if (tensorboard.enabled) this.#monitors.push(new TensorBoardMonitor(directoryOf(tensorboard), failed('tensorboard', tensorboard)));
    if (csv.enabled) this.#monitors.push(new CsvMonitor(directoryOf(csv), failed('csv_monitor', csv)));
    if (wandb.enabled) {
      const { project, group, team: entity } = wandb;
      const run = { project, group, entity, config: { ...config } };
      this.#monitors.push(new WandbMonitor(wandb.output_path, run, failed('wandb', wandb)));
    }
  }

  static wantedBy({ tensorboard, csv_monitor: csv, wandb }: MonitorsConfig): boolean {
    return tensorboard.enabled || csv.enabled || wandb.enabled;
  }

  /** @throws DeepSpeedError where an earlier write failed and `fail_on_error` is set */
  write(events: readonly ScalarEvent[]): void {
    if (this.#fatal) throw this.#fatal;
    for (const monitor of this.#monitors) monitor.write(events);
  }

  /** Ends them. Resolves once everything is on disk. @throws as `write` */
  async close(): Promise<void> {
    await Promise.all(this.#monitors.map((monitor) => monitor.close()));
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
function directoryOf({ output_path, job_name }: JobConfig): string {
  return join(output_path, job_name);
}
