import { blend, copy, empty, launch, matmulOp, normalize, scope, sumSquares, type Tensor } from '@deepspeed-ts/core';

/**
 * The odd polynomial that Muon iterates: a x + b x^3 + c x^5 has its slope at 0 as large as it can be while values in [0, 1] stay within
 * about 0.7 and 1.2, where they end up after five rounds.
 */
const [A, B, C] = [3.4445, -4.775, 2.0315] as const;

/** As Muon's reference. */
const EPS = 1e-7;

/**
 * Makes the singular values of a matrix [m, n] nearly 1, in place, by Newton-Schulz iteration in the matrix's dtype: X <- a X + (b G + c G^2) X
 * with G = X X', from X of Frobenius norm 1. A tall matrix is iterated from the right, with G = X' X of [n, n], so that it need not be
 * transposed. Holds two more matrices like it and two of the smaller side squared.
 */
export function orthogonalize(matrix: Tensor, steps: number): void {
  scope(() => {
    const { device, dtype, shape } = matrix;
    const [rows, columns] = shape as [number, number];
    const wide = rows <= columns;
    const side = Math.min(rows, columns);
    const squares = empty(device, [1], 'f32');
    launch(sumSquares, [matrix], [squares], {});
    let x = empty(device, shape, dtype);
    let next = empty(device, shape, dtype);
    launch(normalize, [matrix, squares], [x], { eps: EPS });
    const gram = empty(device, [side, side], dtype);
    const polynomial = empty(device, [side, side], dtype);
    for (let step = 0; step < steps; step++) {
      launch(matmulOp, [x, x], [gram], { transA: Number(!wide), transB: Number(wide) });
      launch(matmulOp, [gram, gram], [polynomial], { transA: 0, transB: 0 });
      launch(blend, [gram], [polynomial], { alpha: B, beta: C });
      launch(matmulOp, wide ? [polynomial, x] : [x, polynomial], [next], { transA: 0, transB: 0 });
      launch(blend, [x], [next], { alpha: A, beta: 1 });
      [x, next] = [next, x];
    }
    launch(copy, [x], [matrix], {});
  });
}
