import { hostname } from 'node:os';
import { join } from 'node:path';
import { AppendedFile } from './appended-file.js';
import { record, scalarEvent, versionEvent } from './event-file.js';
import type { Monitor, ScalarEvent } from './monitor.js';

/** Writes an event file that `tensorboard --logdir` shows; a new one for every run, as its own writers do. */
export class TensorBoardMonitor implements Monitor {
  readonly name = 'tensorboard';
  readonly #file: AppendedFile;

  constructor(directory: string, failed: (error: unknown) => void, now: () => number = Date.now) {
    const started = now();
    const name = `events.out.tfevents.${Math.floor(started / 1000)}.${hostname()}.${process.pid}.${started % 1000}`;
    this.#file = new AppendedFile(join(directory, name), failed);
    this.#file.append(record(versionEvent(started / 1000)));
  }

  get path(): string {
    return this.#file.path;
  }

  write(events: readonly ScalarEvent[]): void {
    const time = Date.now() / 1000;
    for (const { name, value, samples } of events) this.#file.append(record(scalarEvent(time, samples, name, value)));
  }

  close(): Promise<void> {
    return this.#file.flush();
  }
}
