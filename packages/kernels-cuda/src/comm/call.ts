import { type DType, dtypes } from '@deepspeed-ts/core';
import { opKinds, reduceOps } from './native-comm.js';

/** One call of a rank, as the other ranks must see it too. Numbers as the addon has them. */
export interface Call {
  readonly kind: number;
  readonly dtype: number;
  readonly reduce: number;
  /** Root of a broadcast, other side of a send or receive. */
  readonly peer: number;
  /** Elements of one slice: all of the tensor for all-reduce, broadcast, send and receive. */
  readonly count: number;
}

/** Bytes of a call in a report. */
export const callBytes = 16;

export function writeCall(view: DataView, at: number, { kind, dtype, reduce, peer, count }: Call): void {
  view.setUint8(at, kind);
  view.setUint8(at + 1, dtype);
  view.setUint8(at + 2, reduce);
  view.setUint8(at + 3, 0);
  view.setInt32(at + 4, peer);
  view.setFloat64(at + 8, count);
}

export function readCall(view: DataView, at: number): Call {
  return {
    kind: view.getUint8(at),
    dtype: view.getUint8(at + 1),
    reduce: view.getUint8(at + 2),
    peer: view.getInt32(at + 4),
    count: view.getFloat64(at + 8),
  };
}

export function sameCall(a: Call, b: Call): boolean {
  return a.kind === b.kind && a.dtype === b.dtype && a.reduce === b.reduce && a.peer === b.peer && a.count === b.count;
}

const names: Readonly<Record<number, string>> = {
  [opKinds.barrier]: 'barrier',
  [opKinds.allReduce]: 'all_reduce',
  [opKinds.reduceScatter]: 'reduce_scatter',
  [opKinds.allGather]: 'all_gather',
  [opKinds.broadcast]: 'broadcast',
  [opKinds.allToAll]: 'all_to_all',
  [opKinds.send]: 'send',
  [opKinds.recv]: 'recv',
  [opKinds.split]: 'split',
};

/** "all_reduce #17 (sum of 1024 f32)" */
export function describeCall(call: Call, sequence: number): string {
  const name = `${names[call.kind] ?? 'an unknown call'} #${sequence}`;
  const dtype = (Object.keys(dtypes) as DType[]).find((key) => dtypes[key].code === call.dtype) ?? 'unknown';
  const reduce = Object.keys(reduceOps)[call.reduce] ?? 'unknown';
  switch (call.kind) {
    case opKinds.barrier:
    case opKinds.split:
      return name;
    case opKinds.allReduce:
      return `${name} (${reduce} of ${call.count} ${dtype})`;
    case opKinds.reduceScatter:
      return `${name} (${reduce} of slices of ${call.count} ${dtype})`;
    case opKinds.broadcast:
    case opKinds.recv:
      return `${name} (${call.count} ${dtype} from rank ${call.peer})`;
    case opKinds.send:
      return `${name} (${call.count} ${dtype} to rank ${call.peer})`;
    default:
      return `${name} (slices of ${call.count} ${dtype})`;
  }
}
