import { writeFile } from 'node:fs/promises';
import type { Device, Module } from '@deepspeed-ts/core';
import type { Phase } from '../engine/wall-clock.js';
import type { Log } from './log.js';
import { ModuleClock, type Span } from './profile/module-clock.js';
import { type ModelProfile, profileOf } from './profile/profile.js';
import { formatProfile } from './profile/profile-table.js';
import type { Trace } from './trace.js';

export interface FlopsProfilerConfig {
  readonly enabled: boolean;
  readonly profile_step: number;
  readonly module_depth: number;
  readonly top_modules: number;
  readonly detailed: boolean;
  readonly output_file: string | null;
}

/** What a step that is looked at belongs to. */
export interface ProbedStep {
  /** Counted from 1. */
  readonly step: number;
  readonly ranks: number;
  readonly microBatchSize: number;
}

/** Looks at one step module by module: for a profile, a trace, or both. */
export class StepProbe {
  readonly #clock: ModuleClock;
  readonly #trace: Trace | undefined;
  readonly #step: ProbedStep;
  #microBatches = 0;
  #stepMilliseconds = 0;

  /** @param profiled - all modules are told apart; else those that are units, which is what a trace shows */
  constructor(model: Module, device: Device, step: ProbedStep, profiled: boolean, trace: Trace | undefined) {
    const span = trace && ((stretch: Span) => trace.span(stretch));
    this.#clock = new ModuleClock(model, device, { ...(!profiled && { wants: (module) => module.isUnit }), ...(span && { span }) });
    this.#trace = trace;
    this.#step = step;
  }

  /** Runs a phase; resolves nothing and waits for the device at both ends. */
  run<T>(phase: Phase, body: () => T): T {
    this.#clock.wait();
    const begun = performance.now();
    const result = phase === 'step' ? body() : this.#clock.run(phase, body);
    this.#clock.wait();
    const ended = performance.now();
    this.#trace?.phase(phase, begun, ended, this.#step.step);
    if (phase === 'forward') this.#microBatches++;
    if (phase === 'step') this.#stepMilliseconds = ended - begun;
    return result;
  }

  profile(): ModelProfile {
    const microBatches = Math.max(1, this.#microBatches);
    return { ...this.#step, microBatches, stepMilliseconds: this.#stepMilliseconds, model: profileOf(this.#clock.root, microBatches) };
  }

  dispose(): void {
    this.#clock.dispose();
  }
}

/** Says a profile where the config wants it. */
export async function sayProfile(profile: ModelProfile, config: FlopsProfilerConfig, log: Log): Promise<void> {
  const { module_depth: depth, top_modules: top, detailed, output_file: file } = config;
  const text = formatProfile(profile, { depth, top, detailed });
  if (file === null) return log.info(text);
  try {
    await writeFile(file, file.endsWith('.json') ? `${JSON.stringify(profile, null, 2)}\n` : `${text}\n`);
  } catch (error) {
    log.warn(`[flops_profiler] the profile could not be written to output_file: ${(error as Error).message}. Training goes on`);
  }
}
