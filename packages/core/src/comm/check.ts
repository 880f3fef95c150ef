import { bytesOf, isFloat } from '../dtype.js';
import { ShapeError } from '../errors.js';
import type { Tensor } from '../tensor/tensor.js';
import type { ReduceOp } from './communicator.js';

/** What every communicator refuses before it calls its library. */

export function checkReducible(op: string, tensor: Tensor, reduce: ReduceOp): void {
  const { dtype } = tensor;
  if (reduce === 'max' || reduce === 'min' || isFloat(dtype)) return;
  if (reduce === 'sum' && (dtype === 'i32' || dtype === 'i64')) return;
  throw new ShapeError(op, reduce === 'mean' ? 'a float dtype for the mean' : 'a float dtype, i32 or i64 for the sum', dtype);
}

/** `whole` must be `slices` times `part`, of its dtype. */
export function checkSlices(op: string, name: string, whole: Tensor, slices: number, part: Tensor): void {
  if (whole.dtype !== part.dtype) throw new ShapeError(op, `input and output of one dtype`, `${whole.dtype} and ${part.dtype}`);
  if (whole.numel === slices * part.numel) return;
  const bytes = bytesOf(whole.dtype);
  throw new ShapeError(op, `an ${name} of ${slices} x ${part.numel} elements (${bytes} bytes each)`, `${whole.numel} elements`);
}
