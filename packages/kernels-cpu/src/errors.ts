import { CollectiveMismatchError, DeepSpeedError, OutOfMemoryError, PeerLostError, RendezvousError } from '@deepspeed-ts/core';
import type { NativeCallError, NativeFailure } from './native.js';

/** A kernel refused its input. Work queued between the launch and this report was skipped. */
export class KernelError extends DeepSpeedError {
  constructor(
    readonly op: string,
    text: string,
  ) {
    super('ERR_KERNEL', `[${op}] ${text}`);
  }
}

/** One way to reach the native binary, and why it failed. */
export interface LoadAttempt {
  readonly what: string;
  readonly reason: string;
}

/** No native binary fits this machine. */
export class NativeLoadError extends DeepSpeedError {
  constructor(
    readonly attempts: readonly LoadAttempt[],
    remedies: readonly string[],
  ) {
    const tried = attempts.map(({ what, reason }) => `  - ${what}: ${reason}`);
    const help = remedies.map((remedy) => `  - ${remedy}`);
    super(
      'ERR_NATIVE_LOAD',
      ['[cpu] no native binary of @deepspeed-ts/kernels-cpu could be loaded. Tried:', ...tried, 'What helps:', ...help].join('\n'),
    );
  }
}

/** The typed error for queued work that failed. */
export function failureError(error: unknown): unknown {
  const { kind, op, rank, peer, message } = error as NativeFailure;
  switch (kind) {
    case undefined:
      return error;
    case 'kernel':
      return new KernelError(op, message);
    case 'peer_lost':
      return new PeerLostError(rank, peer, message);
    case 'mismatch':
      return new CollectiveMismatchError(rank, message);
    case 'rendezvous':
      return new RendezvousError(rank, message);
    default:
      return new DeepSpeedError('ERR_COLLECTIVE', message);
  }
}

/** The typed error for a call that could not be queued. */
export function callError(error: unknown): unknown {
  const { code, message } = error as NativeCallError;
  if (code === 'BAD_HANDLE' || code === 'BAD_ARGUMENT') return new DeepSpeedError(`ERR_${code}`, `[cpu] ${message}`);
  return error;
}

export function allocationError(error: unknown, requested: number, live: number): unknown {
  const { code, message } = error as NativeCallError;
  return code === 'OUT_OF_MEMORY' ? new OutOfMemoryError('cpu', requested, live, message) : callError(error);
}
