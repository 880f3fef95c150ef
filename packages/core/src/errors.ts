/**
 * Errors carry data, not only prose: `code` to switch on, and the fields that a program would want. Messages say what happened,
 * where, what was expected, what came, and the way out.
 */
export class DeepSpeedError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A tensor of the wrong shape or dtype was given to an op. */
export class ShapeError extends DeepSpeedError {
  constructor(
    readonly op: string,
    readonly expected: string,
    readonly got: string,
  ) {
    super('ERR_SHAPE', `[${op}] expected ${expected}, got ${got}`);
  }
}

/** A buffer or tensor was used after its last owner let go of it, or disposed twice. */
export class DisposedError extends DeepSpeedError {
  constructor(readonly what: string) {
    super('ERR_DISPOSED', `${what} was used after it was disposed; keep it alive by returning it from its scope or calling retain()`);
  }
}

/** The device has no memory left for an allocation. `byKind`: what is alive, in bytes, by what it is for. */
export class OutOfMemoryError extends DeepSpeedError {
  constructor(
    readonly device: string,
    readonly requested: number,
    readonly live: number,
    readonly detail: string,
    readonly byKind: Readonly<Record<string, number>> = {},
  ) {
    const kinds = Object.entries(byKind).map(([kind, bytes]) => `${kind} ${mebibytes(bytes)}`);
    const listed = kinds.length > 0 ? ` (${kinds.join(', ')})` : '';
    super(
      'ERR_OUT_OF_MEMORY',
      `[${device}] out of memory: asked for ${requested} bytes with ${live} bytes live${listed}. ${detail}${remedy(byKind)}`,
    );
  }
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** What helps most, by what takes most. */
function remedy(byKind: Readonly<Record<string, number>>): string {
  const [largest] = Object.entries(byKind).sort(([, a], [, b]) => b - a);
  if (!largest) return '';
  const ways: Record<string, string> = {
    activations: 'use a smaller train_micro_batch_size_per_gpu (with more gradient_accumulation_steps), or recompute activations',
    optimizer: 'shard the optimizer state over more ranks (zero_optimization.stage 1 or higher)',
    gradients: 'shard the gradients over more ranks (zero_optimization.stage 2 or 3)',
    parameters: 'shard the parameters over more ranks (zero_optimization.stage 3), or train in bf16',
  };
  const way = ways[largest[0]];
  return way ? `. What would help most: ${way}` : '';
}

/** Ranks called different collectives, or the same one with different dtype or count. */
export class CollectiveMismatchError extends DeepSpeedError {
  constructor(
    readonly rank: number,
    message: string,
  ) {
    super('ERR_COLLECTIVE_MISMATCH', message);
  }
}

/** A rank of the group has gone or does not answer. */
export class PeerLostError extends DeepSpeedError {
  constructor(
    readonly rank: number,
    readonly peer: number,
    message: string,
  ) {
    super('ERR_PEER_LOST', message);
  }
}

/** The ranks could not find each other. */
export class RendezvousError extends DeepSpeedError {
  constructor(
    readonly rank: number,
    message: string,
  ) {
    super('ERR_RENDEZVOUS', message);
  }
}

/** A configuration that can't be used. `problems` has one entry for each. */
export class ConfigError extends DeepSpeedError {
  constructor(readonly problems: readonly string[]) {
    super('ERR_CONFIG', problems.length === 1 ? problems[0]! : `${problems.length} problems in the config:\n- ${problems.join('\n- ')}`);
  }
}
