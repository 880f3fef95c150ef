import { isFloat } from '../dtype.js';
import { ShapeError } from '../errors.js';
import { describe, numelOf, type Shape, type TensorSpec } from '../tensor/tensor.js';

/** Shape rules that ops share. Each throws a ShapeError naming op, expected and got. */

export function expect(condition: boolean, op: string, expected: string, got: TensorSpec | string): asserts condition {
  if (!condition) throw new ShapeError(op, expected, typeof got === 'string' ? got : describe(got));
}

export function expectFloat(op: string, what: string, spec: TensorSpec): void {
  expect(isFloat(spec.dtype), op, `${what} of a float dtype`, spec);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

export function expectSame(op: string, what: string, spec: TensorSpec, like: TensorSpec): void {
  expect(sameShape(spec.shape, like.shape) && spec.dtype === like.dtype, op, `${what} like ${describe(like)}`, spec);
}

/** The last axis, C of [..., C]. */
export function columns(spec: TensorSpec): number {
  return spec.shape.at(-1) ?? 1;
}

/** How many rows of the last axis there are. */
export function rowsOf(spec: TensorSpec): number {
  const c = columns(spec);
  return c === 0 ? 0 : numelOf(spec.shape) / c;
}

/** The shape with another last axis. */
export function withColumns(shape: Shape, size: number): Shape {
  return [...shape.slice(0, -1), size];
}
