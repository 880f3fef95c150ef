import { type DType, type HostTensor, hostTensor, isFloat, Random, type ReduceOp, rounded } from '@deepspeed-ts/core';

export type CollectiveKind = 'allReduce' | 'reduceScatter' | 'allGather' | 'broadcast' | 'allToAll';

/** One collective, with everything that may matter for how it travels. */
export interface CollectiveCase {
  readonly kind: CollectiveKind;
  readonly dtype: DType;
  readonly op: ReduceOp;
  /** Elements of one slice. */
  readonly count: number;
  readonly root: number;
  /** Whether rank r keeps its tensors in shared memory. */
  readonly shared: readonly boolean[];
  /** The smaller tensor is a slice of the larger one. */
  readonly inPlace: boolean;
  readonly seed: number;
  /** No NaNs among the inputs. */
  readonly finite?: boolean;
}

const dtypes: readonly DType[] = ['f32', 'bf16', 'f16', 'i32', 'i64', 'u8'];
const kinds: readonly CollectiveKind[] = ['allReduce', 'reduceScatter', 'allGather', 'broadcast', 'allToAll'];

/** `n` cases that cover every kind with every dtype, with counts from nothing up; the first of each kind needs two chunks of a link. */
export function collectiveCases(n: number, size: number, seed: number): CollectiveCase[] {
  const random = new Random(seed);
  const choose = <T>(list: readonly T[]): T => list[random.ints(list.length, 1).data[0]!]!;
  return Array.from({ length: n }, (_, i) => {
    const dtype = dtypes[Math.floor(i / kinds.length) % dtypes.length]!;
    const sums: ReduceOp[] = isFloat(dtype) ? ['sum', 'mean'] : dtype === 'u8' ? [] : ['sum'];
    const kind = kinds[i % kinds.length]!;
    const bound = choose([2, size + 2, 100, 5_000, 20_000]);
    const several = kind === 'allReduce' ? size * 70_001 : 70_001;
    return {
      kind,
      dtype,
      op: choose<ReduceOp>([...sums, ...sums, 'max', 'min']),
      count: i < kinds.length ? several : random.ints(bound, 1).data[0]!,
      root: random.ints(size, 1).data[0]!,
      shared: Array.from(random.ints(2, size).data, (bit) => bit === 1),
      inPlace: choose([true, false]),
      seed: seed + i,
    };
  });
}

export function describeCase({ kind, dtype, op, count, root, shared, inPlace }: CollectiveCase): string {
  return `${kind} of ${count} ${dtype} (op ${op}, root ${root}, shared [${shared.join(' ')}]${inPlace ? ', in place' : ''})`;
}

/**
 * What a rank puts in: `slices` times `count` elements. Floats of many magnitudes, so that another order of sums shows, and now and
 * then a NaN, which must show in every reduction.
 */
export function inputOf({ kind, dtype, count, seed, finite }: CollectiveCase, rank: number, size: number): HostTensor {
  const n = kind === 'reduceScatter' || kind === 'allToAll' ? size * count : count;
  const data = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const bits = mixed(i, seed * 64 + rank);
    if (isFloat(dtype)) data[i] = bits % 997 === 0 && !finite ? Number.NaN : ((bits & 0xffff) / 0x8000 - 1) * 2 ** ((bits >>> 16) % 9);
    else data[i] = dtype === 'u8' ? bits & 0xff : bits % 1_000_000;
  }
  return rounded(hostTensor([n], dtype, data));
}

/** 32 well mixed bits: a multiplicative hash, much faster than the random numbers of training. */
function mixed(i: number, seed: number): number {
  let bits = Math.imul(i ^ Math.imul(seed, 0x9e3779b1), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 15), 0xc2b2ae35);
  return (bits ^ (bits >>> 13)) >>> 0;
}

/** What rank `rank` must have in the end, from plain loops over everybody's input. */
export function expectedOf(c: CollectiveCase, rank: number, size: number): HostTensor {
  const inputs = Array.from({ length: size }, (_, r) => inputOf(c, r, size).data);
  const { count, dtype } = c;
  switch (c.kind) {
    case 'allReduce':
      return hostTensor([count], dtype, reduced(c, inputs));
    case 'reduceScatter':
      return hostTensor(
        [count],
        dtype,
        reduced(
          c,
          inputs.map((data) => data.subarray(rank * count, (rank + 1) * count)),
        ),
      );
    case 'broadcast':
      return hostTensor([count], dtype, inputs[c.root]!);
    case 'allGather':
      return hostTensor(
        [size * count],
        dtype,
        inputs.flatMap((data) => [...data]),
      );
    case 'allToAll':
      return hostTensor(
        [size * count],
        dtype,
        inputs.flatMap((data) => [...data.subarray(rank * count, (rank + 1) * count)]),
      );
  }
}

/** In rank order, in f32 for floats, rounded to the dtype once. */
function reduced({ op, dtype }: CollectiveCase, inputs: readonly Float64Array[]): Float64Array {
  const step = isFloat(dtype) ? Math.fround : (x: number) => x;
  const combine = { sum: (a: number, b: number) => step(a + b), mean: (a: number, b: number) => step(a + b), max: Math.max, min: Math.min }[
    op
  ];
  const scale = op === 'mean' ? step(1 / inputs.length) : 1;
  const data = inputs[0]!.map((first, i) => {
    let acc = first;
    for (let r = 1; r < inputs.length; r++) acc = combine(acc, inputs[r]![i]!);
    return step(acc * scale);
  });
  return rounded(hostTensor([data.length], dtype, data)).data;
}
