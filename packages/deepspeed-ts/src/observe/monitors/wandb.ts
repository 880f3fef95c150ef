import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { AppendedFile } from './appended-file.js';
import type { Monitor, ScalarEvent } from './monitor.js';
import { WandbFile, type WandbRun } from './wandb-file.js';

/** Writes an offline run of Weights & Biases, which `wandb sync` uploads; a new one for every run. */
export class WandbMonitor implements Monitor {
  readonly name = 'wandb';
  readonly #log: WandbFile;
  readonly #file: AppendedFile;
  readonly #made: Promise<unknown>;
  #broken = false;

  /** @param directory - gets `wandb/offline-run-<date>_<time>-<id>`, as from Weights & Biases' own SDK */
  constructor(directory: string, run: Pick<WandbRun, 'project' | 'entity' | 'group' | 'config'>, failed: (error: unknown) => void) {
    const started = Date.now();
    const id = runId();
    this.#log = new WandbFile({ ...run, id, started, host: hostname() });
    const folder = join(directory, 'wandb', `offline-run-${timestamp(started)}-${id}`);
    this.#file = new AppendedFile(join(folder, `run-${id}.wandb`), (error) => {
      // Places in the file decide where records are cut: after a hole nothing could be read.
      this.#broken = true;
      failed(error);
    });
    // Where `wandb sync` puts config.yaml and others that it makes of the run.
    this.#made = mkdir(join(folder, 'files'), { recursive: true }).catch(failed);
    this.#file.append(this.#log.begin());
  }

  /** A row for each count of samples. */
  write(events: readonly ScalarEvent[]): void {
    const rows = new Map<number, [string, number][]>();
    for (const { name, value, samples } of events) {
      const row = rows.get(samples) ?? [];
      row.push([name, value]);
      rows.set(samples, row);
    }
    for (const [samples, values] of rows) this.#append(this.#log.row(samples, Date.now(), values));
  }

  async close(): Promise<void> {
    this.#append(this.#log.end(Date.now()));
    await Promise.all([this.#made, this.#file.flush()]);
  }

  #append(bytes: Uint8Array): void {
    if (!this.#broken) this.#file.append(bytes);
  }
}

const ALPHABET = '0123456789abcdefghijklmnopqrstuvwxyz';

function runId(): string {
  return Array.from(randomBytes(8), (byte) => ALPHABET[byte % ALPHABET.length]).join('');
}

/** In local time: 20260131_235959. */
function timestamp(time: number): string {
  const local = new Date(time - new Date(time).getTimezoneOffset() * 60_000).toISOString();
  return `${local.slice(0, 10).replaceAll('-', '')}_${local.slice(11, 19).replaceAll(':', '')}`;
}
