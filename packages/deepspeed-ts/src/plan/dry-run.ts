import {
  type Batch,
  bytesOf,
  empty,
  type GradientTarget,
  type MemoryModel,
  type Parameter,
  type ParameterStore,
  type Tensor,
  unitsOf,
} from '@deepspeed-ts/core';
import type { DeepSpeedConfig } from '../config/index.js';
import { type EngineOptions, engineParts } from '../engine/assemble.js';
import type { EngineParts, TrainableModel } from '../engine/parts.js';
import { Training } from '../engine/training.js';
import { DryBackend } from './dry-backend.js';
import { DryCommunicator } from './dry-communicator.js';
import { DryDevice, type Holdings, type Moment } from './dry-device.js';

/** What of `initialize`'s arguments decides how much memory an engine takes. */
export type DrySetup = Pick<EngineOptions, 'optimizer' | 'parameterGroups'> & {
  readonly model: TrainableModel;
  readonly config: DeepSpeedConfig;
  readonly ranks: number;
  readonly memory: MemoryModel;
};

/** Bytes of one rank. */
export interface Usage {
  /** Held between steps. */
  readonly steady: Holdings;
  /** Held when it was most. */
  readonly atPeak: Holdings;
  readonly when: Moment;
  /** The most that buffers held at once: the allocator's peak. */
  readonly peak: number;
  /** What the allocator took from the system for that. */
  readonly reserved: number;
  readonly workspace: number;
  /** The most that buffers held in the host's memory, beside the device's. */
  readonly host: number;
  /** Of `optimizer`, the f32 master weights. */
  readonly master: number;
}

/** More micro-batches of a step hold nothing new: the first makes the sums, the second adds to them as all others do. */
const MICRO_BATCHES = 2;
/** The first step learns the order of units, the second gathers ahead by it, within a step and beside its end; the third begins with that. */
const STEPS = 3;

/** Sets an engine up on nothing: what its state takes. */
export async function drySetup(setup: DrySetup): Promise<Usage> {
  const { parts, device } = await open(setup);
  try {
    return usageOf(parts, device);
  } finally {
    close(parts);
  }
}

/**
 * Trains on nothing: the engine's own program, model, partitioner and optimizer, on a device that only counts. So it stays true when
 * they change. The model must be free, and is free again afterwards.
 */
export async function dryRun(setup: DrySetup, batch: Batch): Promise<Usage> {
  const { gradient_accumulation_steps: asked, train_micro_batch_size_per_gpu: micro } = setup.config;
  const steps = Math.min(asked, MICRO_BATCHES);
  const config = { ...setup.config, gradient_accumulation_steps: steps, train_batch_size: steps * micro * setup.ranks };
  const { parts, device } = await open({ ...setup, config });
  const training = new Training(parts, {
    timed(phase, body) {
      device.phase = phase;
      return body();
    },
    stepped() {},
  });
  // As the engine does, for the mean that it reports.
  const losses: Tensor[] = [];
  try {
    for (let step = 0; step < STEPS; step++) {
      for (let i = 0; i < steps; i++) {
        // Those of the micro-batches left out, while the last one runs.
        if (i === steps - 1) losses.push(empty(device, [asked - steps], 'f32'));
        const loss = training.forward(batch);
        losses.push(loss.retain());
        training.backward(loss);
        await training.endMicroBatch();
      }
      for (const loss of losses.splice(0)) loss.dispose();
    }
    training.dropLoss();
    return usageOf(parts, device);
  } finally {
    for (const loss of losses) loss.dispose();
    training.dropLoss();
    close(parts);
  }
}

async function open({ model, config, ranks, memory, ...rest }: DrySetup): Promise<{ parts: EngineParts; device: DryDevice }> {
  const device = new DryDevice(new DryBackend(memory));
  const parts = await engineParts({ model, ...rest }, config, device, new DryCommunicator(0, ranks), false);
  watchUnits(parts, device);
  return { parts, device };
}

function close({ fp8, store, model }: EngineParts): void {
  fp8?.dispose();
  store.dispose();
  model.dispose();
}

function usageOf({ store, config }: EngineParts, device: DryDevice): Usage {
  const { peak, reserved, workspace } = device.backend.memory();
  const { holdings, when } = device.atPeak;
  const sharded = config.zero_optimization.stage > 0;
  const trained = store.layouts.filter(({ keeping }) => keeping === 'trained');
  const owned = trained.reduce((sum, { slice, padded }) => sum + (sharded ? slice : padded), 0);
  const master = store.dtype === store.masterDtype ? 0 : owned * bytesOf('f32');
  return { steady: device.held, atPeak: holdings, when, peak, reserved, workspace, host: device.backend.hostPeak, master };
}

/** Lets the device know which unit is at work: parameters go through a store that says so. */
function watchUnits({ model, store }: EngineParts, device: DryDevice): void {
  for (const { name, parameters } of unitsOf(model)) {
    for (const parameter of parameters.values()) {
      parameter.attach(undefined);
      parameter.attach(new WatchedStore(store, () => (device.unit = name)));
    }
  }
}

class WatchedStore implements ParameterStore {
  constructor(
    readonly store: ParameterStore,
    readonly seen: () => void,
  ) {}

  get dtype() {
    return this.store.dtype;
  }

  get device() {
    return this.store.device;
  }

  use(parameter: Parameter): Tensor {
    this.seen();
    return this.store.use(parameter);
  }

  done(parameter: Parameter): void {
    this.store.done(parameter);
  }

  gradientTarget(parameter: Parameter): GradientTarget {
    this.seen();
    return this.store.gradientTarget(parameter);
  }

  onGradient(parameter: Parameter): void {
    this.store.onGradient(parameter);
  }
}
