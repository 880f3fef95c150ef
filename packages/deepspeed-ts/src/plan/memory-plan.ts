import type { FloatDType } from '@deepspeed-ts/core';
import type { DeepSpeedConfig } from '../config/index.js';
import type { DeviceName } from '../device.js';
import type { Moment } from './dry-device.js';

/** Bytes of one rank's device by what they are for. */
export interface MemoryRows {
  /** Weights in the compute dtype, as far as the rank keeps them. */
  readonly parameters: number;
  /** Weights that stage 3 has gathered for the units in use. */
  readonly gathered: number;
  readonly gradients: number;
  /** f32 weights beside low-precision ones. In f32 training the weights are their own. */
  readonly master: number;
  readonly optimizer: number;
  readonly activations: number;
  readonly communication: number;
  /** Micro-batches and tables of positions. */
  readonly data: number;
  /** What the config puts into the host's memory, where that is the device's own: on a CPU. */
  readonly host: number;
}

/** What the memory of one rank goes to. All ranks take the same. */
export interface MemoryPlan {
  readonly device: DeviceName;
  readonly worldSize: number;
  /** Elements of all parameters, each counted once. */
  readonly modelParameters: number;
  readonly settings: PlannedSettings;
  /** Between steps. */
  readonly steady: MemoryRows;
  /** When it is most. `bytes` is the sum of `rows`, and what the allocator's `peak` will say. */
  readonly peak: { readonly bytes: number; readonly rows: MemoryRows; readonly when: Moment };
  /** What the allocator takes from the system for that: rounding and gaps included. */
  readonly reserved: number;
  /** Scratch memory of kernels, at most. */
  readonly workspace: number;
  /** Beside the allocator, by what takes it. */
  readonly fixed: Readonly<Record<string, number>>;
  /** All that the device has to have: `reserved`, `workspace` and `fixed`. */
  readonly required: number;
  /** The most of the host's memory, by what takes it. On a CPU the device's comes on top. */
  readonly host: Readonly<Record<string, number>>;
}

/** What of a config decides about memory. */
export interface PlannedSettings {
  readonly stage: DeepSpeedConfig['zero_optimization']['stage'];
  readonly dtype: FloatDType;
  readonly microBatch: number;
  readonly accumulation: number;
  readonly batch: number;
  readonly recompute: boolean;
  readonly sequenceLength: number | undefined;
}
