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
  /** What it is for; '' where the caller did not say. */
  readonly tag: string;
}

/** Bytes of a call in a report. A tag travels as a number there, and once as a text. */
export const callBytes = 20;

export function writeCall(view: DataView, at: number, { kind, dtype, reduce, peer, count }: Call, tag: number): void {
  view.setUint8(at, kind);
  view.setUint8(at + 1, dtype);
  view.setUint8(at + 2, reduce);
  view.setUint8(at + 3, 0);
  view.setInt32(at + 4, peer);
  view.setFloat64(at + 8, count);
  view.setUint32(at + 16, tag);
}

export function readCall(view: DataView, at: number, tags: ReadonlyMap<number, string>): Call {
  const tag = view.getUint32(at + 16);
  return {
    kind: view.getUint8(at),
    dtype: view.getUint8(at + 1),
    reduce: view.getUint8(at + 2),
    peer: view.getInt32(at + 4),
    count: view.getFloat64(at + 8),
    tag: tags.get(tag) ?? `tag ${tag}`,
  };
}

export function sameCall(a: Call, b: Call): boolean {
  return a.kind === b.kind && a.dtype === b.dtype && a.reduce === b.reduce && a.peer === b.peer && a.count === b.count && a.tag === b.tag;
}

/** The number of a tag on every rank (FNV-1a over its UTF-16 units); 0 is no tag. */
export function tagNumber(tag: string): number {
  if (tag === '') return 0;
  let hash = 2166136261;
  for (let i = 0; i < tag.length; i++) hash = Math.imul(hash ^ tag.charCodeAt(i), 16777619);
  return hash >>> 0 || 1;
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

/** "all_reduce #17 (sum of 1024 f32) for 'the tag'" */
export function describeCall(call: Call, sequence: number): string {
  return `${describeUntagged(call, sequence)}${call.tag && ` for '${call.tag}'`}`;
}

function describeUntagged(call: Call, sequence: number): string {
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
