/** A part of a checkpoint's work, for who times it: its forward pass, or its recomputation with the backward pass through it. */
export type CheckpointPhase = 'forward' | 'backward';

/**
 * What a run decides about recomputation, so that a model need not: set around a forward pass by {@link withCheckpointPolicy}. Never changes
 * a bit of the results.
 */
export interface CheckpointPolicy {
  /** Whether lists of blocks are recomputed; `undefined` leaves it to the model. */
  readonly recompute?: boolean | undefined;
  /** Recompute one block of this many, the first, and keep the activations of the others. Default 1: all are recomputed. */
  readonly everyNth?: number;
  /** Make this many checkpoints of a list of blocks, each of neighbours: fewer hold less and recompute more at a time. Default: one for each block. */
  readonly checkpoints?: number | undefined;
  /** Keep the inputs of checkpoints in host memory until they are needed. */
  readonly onHost?: boolean;
  /** Runs a checkpoint's work; for timing. */
  readonly around?: <T>(phase: CheckpointPhase, work: () => T) => T;
  /** Hears of each checkpoint that was made. */
  readonly made?: () => void;
}

let current: CheckpointPolicy = {};

export function checkpointPolicy(): CheckpointPolicy {
  return current;
}

export function withCheckpointPolicy<T>(policy: CheckpointPolicy, body: () => T): T {
  const outer = current;
  current = policy;
  try {
    return body();
  } finally {
    current = outer;
  }
}
