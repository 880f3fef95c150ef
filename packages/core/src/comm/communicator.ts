import type { Tensor } from '../tensor/tensor.js';

export type ReduceOp = 'sum' | 'mean' | 'max' | 'min';

/** A collective that has been queued. */
export interface Work {
  /** Orders everything launched on the backend after this call behind the collective. Never blocks the event loop. Call it once. */
  wait(): void;
  /** Resolves when the collective has finished on this rank; rejects with its error. */
  finished(): Promise<void>;
  /** Of communicators that are `timed`: when it happened, once it has finished well. */
  timing?(): WorkTiming | undefined;
}

/** When a collective happened on this rank, in milliseconds of `performance.now()`. */
export interface WorkTiming {
  /** This rank was ready for it: what was queued before it was done. */
  readonly begun: number;
  /** All ranks were. */
  readonly met: number;
  readonly ended: number;
}

/**
 * A group of ranks that exchange tensors. A collective starts once the launches queued before it are done, runs beside later
 * ones, and its tensors must not be written until `wait()`. Calls must come in the same order with the same op, dtype and
 * count on every rank: ranks that disagree all get a `CollectiveMismatchError`, a lost peer gives a `PeerLostError` on the
 * others, within a timeout. What is done with equal sizes may still be meant differently: a `tag` says what a call is for, and ranks
 * must agree on it too. Reductions add in rank order (0 + 1 + 2 ...) in f32, whatever the algorithm, and round once.
 */
export interface Communicator {
  readonly rank: number;
  readonly size: number;
  /** Its works tell their `timing`. */
  readonly timed?: boolean;
  /** In place. */
  allReduce(tensor: Tensor, op?: ReduceOp, tag?: string): Work;
  /** `input` is `size` equal slices; `output` receives the reduction of slice `rank`. May be that slice of `input` itself. */
  reduceScatter(output: Tensor, input: Tensor, op?: ReduceOp, tag?: string): Work;
  /** `output` is `size` equal slices. `input` may be slice `rank` of `output` itself. */
  allGather(output: Tensor, input: Tensor, tag?: string): Work;
  broadcast(tensor: Tensor, root: number, tag?: string): Work;
  /** Slice i of `input` goes to rank i; slice i of `output` comes from rank i. Out of place. */
  allToAll(output: Tensor, input: Tensor, tag?: string): Work;
  send(tensor: Tensor, to: number): Work;
  recv(tensor: Tensor, from: number): Work;
  barrier(tag?: string): Promise<void>;
  /** A new group of the ranks that give the same colour, ordered by `key` (default: this rank). Every rank must call it. */
  split(color: number, key?: number): Promise<Communicator>;
  close(): Promise<void>;
}
