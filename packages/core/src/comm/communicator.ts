import type { Tensor } from '../tensor/tensor.js';

export type ReduceOp = 'sum' | 'mean' | 'max' | 'min';

/** A collective that has been queued. */
export interface Work {
  /** Orders everything launched on the backend after this call behind the collective. Never blocks the event loop. Call it once. */
  wait(): void;
  /** Resolves when the collective has finished on this rank; rejects with its error. */
  finished(): Promise<void>;
}

/**
 * A group of ranks that exchange tensors. A collective starts once the launches queued before it are done, runs beside later
 * ones, and its tensors must not be written until `wait()`. Calls must come in the same order with the same op, dtype and
 * count on every rank: ranks that disagree all get a `CollectiveMismatchError`, a lost peer gives a `PeerLostError` on the
 * others, within a timeout. Reductions add in rank order (0 + 1 + 2 ...) in f32, whatever the algorithm, and round once.
 */
export interface Communicator {
  readonly rank: number;
  readonly size: number;
  /** In place. */
  allReduce(tensor: Tensor, op?: ReduceOp): Work;
  /** `input` is `size` equal slices; `output` receives the reduction of slice `rank`. May be that slice of `input` itself. */
  reduceScatter(output: Tensor, input: Tensor, op?: ReduceOp): Work;
  /** `output` is `size` equal slices. `input` may be slice `rank` of `output` itself. */
  allGather(output: Tensor, input: Tensor): Work;
  broadcast(tensor: Tensor, root: number): Work;
  /** Slice i of `input` goes to rank i; slice i of `output` comes from rank i. Out of place. */
  allToAll(output: Tensor, input: Tensor): Work;
  send(tensor: Tensor, to: number): Work;
  recv(tensor: Tensor, from: number): Work;
  barrier(): Promise<void>;
  /** A new group of the ranks that give the same colour, ordered by `key` (default: this rank). Every rank must call it. */
  split(color: number, key?: number): Promise<Communicator>;
  close(): Promise<void>;
}
