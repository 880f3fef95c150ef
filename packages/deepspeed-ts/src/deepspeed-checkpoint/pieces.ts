import { encode, type TorchTensor } from '@deepspeed-ts/core';

/** Elements that lie together in a tensor of a file; without a tensor, zeros. */
export interface Piece {
  readonly tensor: TorchTensor | undefined;
  readonly start: number;
  readonly count: number;
}

/** One state of a parameter: pieces whose elements follow each other in row-major order. */
export type Pieces = readonly Piece[];

/** Elements that are read at a time. */
const CHUNK = 2 ** 20;

export function zerosOf(count: number): Pieces {
  return [{ tensor: undefined, start: 0, count }];
}

export function wholeOf(tensor: TorchTensor): Pieces {
  return [{ tensor, start: 0, count: tensor.numel }];
}

export function countOf(pieces: Pieces): number {
  return pieces.reduce((sum, { count }) => sum + count, 0);
}

/** Elements of tensors that stand for one long vector, cut into as many parts: `undefined` where they end before. */
export function sliceOf(parts: readonly TorchTensor[], start: number, count: number): Pieces | undefined {
  const pieces: Piece[] = [];
  let begin = 0;
  for (const tensor of parts) {
    const end = begin + tensor.numel;
    const from = Math.max(start, begin);
    const to = Math.min(start + count, end);
    if (from < to) pieces.push({ tensor, start: from - begin, count: to - from });
    begin = end;
  }
  return start + count <= begin ? pieces : undefined;
}

/** The elements in f32, a block at a time. */
export function* readF32(pieces: Pieces): Generator<Uint8Array> {
  for (const { tensor, start, count } of pieces) {
    for (let at = 0; at < count; at += CHUNK) {
      const length = Math.min(CHUNK, count - at);
      if (!tensor) yield new Uint8Array(4 * length);
      else if (tensor.dtype === 'f32') yield tensor.bytes(start + at, length);
      else yield encode({ ...tensor.values(start + at, length), dtype: 'f32' });
    }
  }
}
