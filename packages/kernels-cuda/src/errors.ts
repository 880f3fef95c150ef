import { CollectiveMismatchError, DeepSpeedError, OutOfMemoryError, PeerLostError, RendezvousError } from '@deepspeed-ts/core';
import type { NativeCallError, NativeFailure } from './native.js';

/** A kernel refused its input. Work queued between the launch and this report was skipped, or computed from it. */
export class KernelError extends DeepSpeedError {
  constructor(
    readonly op: string,
    text: string,
  ) {
    super('ERR_KERNEL', `[${op}] ${text}`);
  }
}

/** There is no GPU to use: no driver, an old one, no such device, or the addon is not built. */
export class NoDeviceError extends DeepSpeedError {
  constructor(detail: string) {
    super('ERR_NO_DEVICE', `[cuda] ${detail}`);
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
      ['[cuda] no native binary of @deepspeed-ts/kernels-cuda could be loaded. Tried:', ...tried, 'What helps:', ...help].join('\n'),
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
      return new DeepSpeedError(
        'ERR_DEVICE_FAILED',
        `[cuda] ${op}: ${message}. The device can't go on in this process: end it, and resume from a checkpoint`,
      );
  }
}

/** The typed error for a call that could not be queued. */
export function callError(error: unknown): unknown {
  const { code, message } = error as NativeCallError;
  if (code === 'NO_DEVICE') return new NoDeviceError(message);
  return code === 'BAD_HANDLE' || code === 'BAD_ARGUMENT' || code === 'ALREADY_LOADED'
    ? new DeepSpeedError(`ERR_${code}`, `[cuda] ${message}`)
    : error;
}

export function allocationError(error: unknown, requested: number, live: number): unknown {
  const { code, message } = error as NativeCallError;
  return code === 'OUT_OF_MEMORY' ? new OutOfMemoryError('cuda', requested, live, message) : callError(error);
}
