import { type CheckpointPhase, type CheckpointPolicy, ConfigError, type Device, tensor } from '@deepspeed-ts/core';
import type { ActivationCheckpointingConfig } from '../config/activation-checkpointing.js';

/** Milliseconds of all checkpoints of one step, averaged since the last report. `backward` has their recomputation in it. */
export interface CheckpointTimes {
  readonly forward: number;
  readonly backward: number;
}

/** What the config says about recomputation, in force during forward passes. */
export class ActivationCheckpointing {
  readonly policy: CheckpointPolicy;
  readonly #config: ActivationCheckpointingConfig;
  readonly #device: Device;
  #milliseconds: Record<CheckpointPhase, number> = { forward: 0, backward: 0 };
  #steps = 0;
  #made = false;

  constructor(config: ActivationCheckpointingConfig, device: Device) {
    const { enabled, every_nth_block, number_checkpoints, cpu_checkpointing } = config;
    const asked = every_nth_block > 1 || number_checkpoints !== null || cpu_checkpointing ? true : undefined;
    const watched = config.profile || config.synchronize_checkpoint_boundary;
    this.#config = config;
    this.#device = device;
    this.policy = {
      recompute: enabled ?? asked,
      everyNth: every_nth_block,
      checkpoints: number_checkpoints ?? undefined,
      onHost: cpu_checkpointing,
      made: () => {
        this.#made = true;
      },
      ...(watched && { around: (phase, work) => this.#around(phase, work) }),
    };
  }

  /** @throws ConfigError after a forward pass that was to make checkpoints, where the model has none to make */
  assertUsed(): void {
    if (this.#made || !this.policy.recompute) return;
    throw new ConfigError([
      'activation_checkpointing: asks for blocks to be recomputed, but the model has made no checkpoint; run its blocks through throughBlocks(), or call checkpoint() in its forward',
    ]);
  }

  /** An optimizer step has ended. */
  stepped(): void {
    this.#steps++;
  }

  /** With `profile`, the averages over the steps since the last call; `undefined` when there were none. */
  take(): CheckpointTimes | undefined {
    const steps = this.#steps;
    if (!this.#config.profile || steps === 0) return undefined;
    const { forward, backward } = this.#milliseconds;
    this.#milliseconds = { forward: 0, backward: 0 };
    this.#steps = 0;
    return { forward: forward / steps, backward: backward / steps };
  }

  #around<T>(phase: CheckpointPhase, work: () => T): T {
    this.#synchronize();
    const start = performance.now();
    const result = work();
    this.#synchronize();
    this.#milliseconds[phase] += performance.now() - start;
    return result;
  }

  /** Reads a number, which comes after everything that is queued. */
  #synchronize(): void {
    using probe = tensor(this.#device, [0], 'f32');
    probe.readSync();
  }
}
