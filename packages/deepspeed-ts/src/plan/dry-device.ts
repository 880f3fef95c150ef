import { type AllocateOptions, type Buffer, Device, type MemoryKind } from '@deepspeed-ts/core';
import type { DryBackend } from './dry-backend.js';

/** Bytes by what they are for. */
export type Holdings = Readonly<Record<MemoryClass, number>>;

/**
 * What a block is for, a little finer than the device's own kinds: weights that stage 3 gathers for a while are told apart from those a rank
 * keeps, and so are gradients of the running micro-batch from the sums that wait for the step.
 */
export type MemoryClass = MemoryKind | 'gathered';

export type Phase = 'setup' | 'forward' | 'backward' | 'step';

/** A place in a training step. */
export interface Moment {
  readonly phase: Phase;
  /** The unit whose parameters were used last, as the model names it. */
  readonly unit: string | undefined;
}

/** A device over {@link DryBackend} that remembers what it held when it held most, and where in the program that was. */
export class DryDevice extends Device {
  phase: Phase = 'setup';
  unit: string | undefined;
  readonly #held: Record<MemoryClass, number> = {
    parameters: 0,
    gathered: 0,
    gradients: 0,
    optimizer: 0,
    activations: 0,
    communication: 0,
    data: 0,
    host: 0,
  };
  readonly #classOf = new WeakMap<Buffer, MemoryClass>();
  #most = -1;
  #atMost: Holdings = { ...this.#held };
  #when: Moment = { phase: 'setup', unit: undefined };

  constructor(override readonly backend: DryBackend) {
    super(backend);
  }

  override allocate(bytes: number, kind: MemoryKind, options?: AllocateOptions): Buffer {
    const buffer = super.allocate(bytes, kind, options);
    if (options && this.backend.isOnHost(options)) return buffer;
    const what = kind === 'parameters' && this.phase !== 'setup' ? 'gathered' : kind;
    this.#classOf.set(buffer, what);
    this.#held[what] = (this.#held[what] ?? 0) + bytes;
    const { live } = this.backend.memory();
    if (live > this.#most) {
      this.#most = live;
      this.#atMost = { ...this.#held };
      this.#when = { phase: this.phase, unit: this.phase === 'setup' ? undefined : this.unit };
    }
    return buffer;
  }

  override forget(buffer: Buffer): void {
    super.forget(buffer);
    const what = this.#classOf.get(buffer);
    if (what) this.#held[what] -= buffer.bytes;
  }

  /** What is held now. */
  get held(): Holdings {
    return { ...this.#held };
  }

  /** What was held when it was most, and when that was. */
  get atPeak(): { readonly holdings: Holdings; readonly when: Moment } {
    return { holdings: this.#atMost, when: this.#when };
  }
}
