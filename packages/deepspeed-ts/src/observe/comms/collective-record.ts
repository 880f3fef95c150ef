import type { WorkTiming } from '@deepspeed-ts/core';

/** Collectives by DeepSpeed's names. */
export const COLLECTIVES = ['all_reduce', 'reduce_scatter', 'all_gather', 'broadcast', 'all_to_all', 'send', 'recv', 'barrier'] as const;
export type CollectiveName = (typeof COLLECTIVES)[number];

/** One collective as one rank saw it. */
export interface CollectiveRecord {
  readonly op: CollectiveName;
  /** What it was for, where the caller says so. */
  readonly tag: string | undefined;
  /** The message as nccl-tests count it: of all ranks for all-gather, reduce-scatter and all-to-all, else of one. */
  readonly bytes: number;
  /** Ranks of its group. */
  readonly ranks: number;
  /** Of the run's own group, not of a split of it. */
  readonly ofAll: boolean;
  /** `met` is `begun` where nobody knows when the other ranks came. */
  readonly timing: WorkTiming;
}

/**
 * What a link carries for each byte of a message, in the conventions of nccl-tests (doc/PERFORMANCE.md there): bus bandwidth is algorithm
 * bandwidth (bytes / time) times this, and can be held against the hardware whatever the number of ranks n.
 *
 *   all-reduce 2(n-1)/n,  all-gather, reduce-scatter and all-to-all (n-1)/n,  broadcast, send and receive 1
 */
export function busFactor(op: CollectiveName, n: number): number {
  switch (op) {
    case 'all_reduce':
      return (2 * (n - 1)) / n;
    case 'all_gather':
    case 'reduce_scatter':
    case 'all_to_all':
      return (n - 1) / n;
    default:
      return 1;
  }
}
