import { empty } from '../tensor/create.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import { columns, expect, rowsOf } from './check.js';
import type { GradientTarget } from './define-op.js';
import { fp8Cast, padded } from './fp8-cast.js';
import { fp8Matmul } from './fp8-matmul.js';
import { launch } from './launch.js';

/** What linear maps in 8 bits share: how they scale and how their products add. */
export interface Fp8Recipe extends Record<string, number> {
  /** There is no history yet: tensors are measured before they are cast. */
  calibrate: number;
  margin: number;
  /** Products of the backward pass may keep fewer bits of their sums; those of the forward pass do. */
  fastBackward: number;
}

/** A matrix in 8 bits, as it was and transposed as far as wanted, with what its codes are to be multiplied with. */
export interface Fp8Matrix {
  readonly rows?: Tensor;
  readonly columns?: Tensor;
  readonly inverse: Tensor;
  readonly e5m2: 0 | 1;
}

/** Rows of a state [3, ...]: of the input, the weight and the gradient of the output. */
export const [OF_X, OF_W, OF_DY] = [0, 1, 2] as const;

/** Casts bf16 matrices, one under the other; to given tensors where there are any. */
export function castToFp8(
  inputs: readonly Tensor[],
  state: Tensor,
  wanted: { e5m2?: 1; rows?: boolean; columns?: Tensor | boolean; inverse?: Tensor },
  { calibrate, margin }: Fp8Recipe,
): Fp8Matrix {
  const { device } = inputs[0]!;
  const cols = columns(inputs[0]!);
  const total = inputs.reduce((sum, x) => sum + rowsOf(x), 0);
  const rows = wanted.rows ? empty(device, [total, cols], 'u8') : undefined;
  const turned = wanted.columns === true ? empty(device, [cols, padded(total)], 'u8') : wanted.columns || undefined;
  const inverse = wanted.inverse ?? empty(device, [1], 'f32');
  const e5m2 = wanted.e5m2 ?? 0;
  const attrs = { e5m2, rows: Number(Boolean(rows)), columns: Number(Boolean(turned)), calibrate, margin };
  launch(fp8Cast, inputs, [...(rows ? [rows] : []), ...(turned ? [turned] : []), inverse, state], attrs);
  return { ...(rows && { rows }), ...(turned && { columns: turned }), inverse, e5m2 };
}

/** Products of codes [M, K] and [N, K] into outputs that are C's rows one after another. */
export function multiplyFp8(
  a: { codes: Tensor; of: Fp8Matrix },
  b: { codes: Tensor; of: Fp8Matrix },
  outputs: readonly Tensor[],
  options: { fast: number; accumulate?: number; bias?: Tensor | undefined },
): void {
  const attrs = { aE5m2: a.of.e5m2, bE5m2: b.of.e5m2, fast: options.fast, accumulate: options.accumulate ?? 0 };
  launch(fp8Matmul, [a.codes, b.codes, a.of.inverse, b.of.inverse, ...(options.bias ? [options.bias] : [])], outputs, attrs);
}

/**
 * dw_i = dy_i' x of weights [O_i, I] whose outputs lie side by side, from the transposes of dy and x. Neighbours go together as long as
 * all are written or all added to; a tensor that comes a second time waits for its first sum.
 */
export function weightGradientsFp8(
  dy: Fp8Matrix,
  x: { codes: Tensor; of: Fp8Matrix },
  sizes: readonly number[],
  targets: readonly (GradientTarget | undefined)[],
  fast: number,
): void {
  let first = 0;
  for (let i = 0; i < sizes.length; ) {
    const begin = targets[i];
    let width = sizes[i++]!;
    if (begin) {
      const tensors = [begin.tensor];
      for (; i < sizes.length; i++) {
        const next = targets[i];
        if (!next || next.accumulate !== begin.accumulate || tensors.some((t) => sameMemory(t, next.tensor))) break;
        tensors.push(next.tensor);
        width += sizes[i]!;
      }
      multiplyFp8({ codes: dy.columns!.narrow(first, width), of: dy }, x, tensors, { fast, accumulate: begin.accumulate });
    }
    first += width;
  }
}

function sameMemory(a: Tensor, b: Tensor): boolean {
  return a.handle === b.handle && a.byteOffset === b.byteOffset;
}

/** Tensor cores take 8-bit operands in vectors of 16. */
export function expectSixteens(op: string, what: string, size: number): void {
  expect(size % 16 === 0, op, `${what} to be a multiple of 16`, `${size}`);
}

export function expectBf16(op: string, what: string, spec: TensorSpec): void {
  expect(spec.dtype === 'bf16', op, `${what} of dtype bf16`, spec);
}
