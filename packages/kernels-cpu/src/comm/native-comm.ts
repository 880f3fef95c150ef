import type { NativeFailure } from '../native.js';

/** What native/comm/operation.h calls the operations. */
export const opKinds = {
  barrier: 0,
  allReduce: 1,
  reduceScatter: 2,
  allGather: 3,
  broadcast: 4,
  allToAll: 5,
  send: 6,
  recv: 7,
} as const;

export type OpName = keyof typeof opKinds;

export const reduceOps = { sum: 0, mean: 1, max: 2, min: 3 } as const;

export interface ConnectedValue {
  readonly rank: number;
  readonly size: number;
}

export interface SplitValue extends ConnectedValue {
  readonly mesh: number;
}

/**
 * Hears how each work ended: a split with a SplitValue, others with the three times of a WorkTiming on the system's monotonic clock. A value
 * of 'site' is a question instead: where was this work called from? Work 0 is the group itself: called once when the ranks have found each
 * other (ConnectedValue) or could not, and once after `close`, as the last call.
 */
export type Listener = (
  work: number,
  failure: NativeFailure | null,
  value: ConnectedValue | SplitValue | 'site' | undefined,
  begun: number,
  met: number,
  ended: number,
) => string | undefined;

export interface NativeWorld {
  readonly rank: number;
  readonly size: number;
  readonly address: string;
  readonly port: number;
  /** Ranks with equal ids share memory; empty: this machine's. */
  readonly hostId: string;
  /** Ranks of different jobs don't mix. */
  readonly job: string;
  readonly rendezvousMs: number;
  readonly silenceMs: number;
}

/** The `comm` part of the addon (native/comm/comm_binding.cc). Groups and works are positive integers. */
export interface NativeComm {
  connect(world: NativeWorld, listener: Listener): number;
  adopt(mesh: number, listener: Listener): number;
  /** Queues an operation behind what is on the stream. `count`: elements of one slice. */
  submit(
    group: number,
    kind: number,
    dtype: number,
    reduce: number,
    peer: number,
    count: number,
    inputHandle: number,
    inputOffset: number,
    inputBytes: number,
    outputHandle: number,
    outputOffset: number,
    outputBytes: number,
    tag: string | undefined,
  ): number;
  split(group: number, color: number, key: number): number;
  /** What is queued on the stream from here on comes after the work. */
  wait(group: number, work: number): void;
  close(group: number): void;
}
