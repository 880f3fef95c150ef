import { join } from 'node:path';
import { AppendedFile } from './appended-file.js';
import type { Monitor, ScalarEvent } from './monitor.js';

/**
 * A file for each name, in DeepSpeed's layout: `Train/Samples/lr` goes to `Train_Samples_lr.csv`, whose columns are `step` (samples so far)
 * and `lr`. A run that goes on appends, without a second header.
 */
export class CsvMonitor implements Monitor {
  readonly name = 'csv_monitor';
  readonly #files = new Map<string, AppendedFile>();

  constructor(
    readonly directory: string,
    readonly failed: (error: unknown) => void,
  ) {}

  write(events: readonly ScalarEvent[]): void {
    for (const { name, value, samples } of events) this.#file(name).append(Buffer.from(`${samples},${value}\n`));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#files.values()].map((file) => file.flush()));
  }

  #file(name: string): AppendedFile {
    let file = this.#files.get(name);
    if (!file) {
      const path = join(this.directory, `${name.replaceAll(/[/ ]/g, '_')}.csv`);
      file = new AppendedFile(path, this.failed, `step,${name.split('/').at(-1)}\n`);
      this.#files.set(name, file);
    }
    return file;
  }
}
