import type { NativeFailure } from '../native.js';

/** What native/comm/operation.h calls the operations. `split` never reaches the addon. */
export const opKinds = {
  barrier: 0,
  allReduce: 1,
  reduceScatter: 2,
  allGather: 3,
  broadcast: 4,
  allToAll: 5,
  send: 6,
  recv: 7,
  split: 8,
} as const;

export type OpName = keyof typeof opKinds;

export const reduceOps = { sum: 0, mean: 1, max: 2, min: 3 } as const;

/**
 * Hears how each work ended on the device. Work 0 is the group itself: called once when NCCL has connected the ranks or could not,
 * and once after `close`, as the last call. Work -1: NCCL reports trouble with the group, which goes on until somebody calls `fail`.
 */
export type Listener = (work: number, failure: NativeFailure | null) => void;

/** This process's GPU. */
export interface GpuIdentity {
  /** NVIDIA's UUID: no two GPUs have the same. */
  readonly uuid: string;
  readonly name: string;
  readonly index: number;
}

/** The `comm` part of the addon (native/comm/comm_binding.cc). Groups and works are positive integers. */
export interface NativeComm {
  /** Why NCCL can't be used, or null. */
  problem(): string | null;
  gpu(): GpuIdentity;
  /** An id that the ranks of one group must share. */
  uniqueId(): Uint8Array;
  /** Connects this rank through NCCL, on a thread of the group's own. */
  open(uniqueId: Uint8Array, rank: number, size: number, silenceMs: number, listener: Listener): number;
  /**
   * Queues an operation behind what is on the compute stream. `count`: elements of one slice. Sends and receives that follow each
   * other wait for `flush`, or for another operation, and then run side by side.
   */
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
  ): number;
  flush(group: number): void;
  /** What is queued on the compute stream from here on comes after the work. */
  wait(group: number, work: number): void;
  /**
   * Ends the group: what has not ended fails with this. `poison`: the compute stream already depends on work that fails here.
   * The first call counts.
   */
  fail(group: number, kind: NativeFailure['kind'], rank: number, peer: number, message: string, poison: boolean): void;
  close(group: number): void;
}
