import { type Argument, apply } from '../autograd/apply.js';
import { numelOf, type Tensor, type TensorSpec } from '../tensor/tensor.js';
import { expect, expectFloat, sameShape } from './check.js';
import { defineOp } from './define-op.js';

interface MatmulAttrs extends Record<string, number> {
  transA: number;
  transB: number;
}

/** y[..., M, N] = a[..., M, K] b[..., K, N]; either may be stored transposed. b may lack the batch axes. */
export const matmulOp = defineOp<MatmulAttrs>({
  name: 'matmul',
  attrs: ['transA', 'transB'],
  infer([a, b], attrs) {
    const { m, n, k, kb, batch } = dims(a!, b!, attrs);
    expectFloat('matmul', 'a', a!);
    expect(b!.dtype === a!.dtype, 'matmul', `b of dtype ${a!.dtype}`, b!);
    expect(k === kb, 'matmul', `inner sizes to agree, a has K = ${k}`, `K = ${kb} in b [${b!.shape.join(', ')}]`);
    expect(
      b!.shape.length === 2 || sameShape(b!.shape.slice(0, -2), batch),
      'matmul',
      `b with batch axes [${batch.join(', ')}] or none`,
      b!,
    );
    return [{ shape: [...batch, m, n], dtype: a!.dtype }];
  },
  reference([a, b], attrs, [y]) {
    const { m, n, k, batch } = dims(a!, b!, attrs);
    const bStep = b!.shape.length === 2 ? 0 : k * n;
    for (let s = 0; s < numelOf(batch); s++) {
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let l = 0; l < k; l++) {
            const x = a!.data[s * m * k + (attrs.transA ? l * m + i : i * k + l)]!;
            sum += x * b!.data[s * bStep + (attrs.transB ? j * k + l : l * n + j)]!;
          }
          y!.data[(s * m + i) * n + j] = sum;
        }
      }
    }
  },
  saves: { inputs: [0, 1] },
  vjp({ attrs: { transA, transB }, input, grad, give, wants, inputSpecs }) {
    const dy = grad(0)!;
    if (wants(0)) {
      const b = input(1);
      // a stored transposed wants its gradient transposed too: (dy b')' = b dy'.
      give(0, transA ? matmul(b, dy, { transA: transB === 1, transB: true }) : matmul(dy, b, { transB: transB === 0 }));
    }
    if (wants(1)) {
      const shared = inputSpecs[1]!.shape.length === 2 && inputSpecs[0]!.shape.length > 2;
      expect(!shared || transA === 0, 'matmul', 'a not transposed where b is shared by a batch and wants a gradient', 'transA');
      // With a shared b the batch is just more rows.
      const a = shared ? input(0).view([-1, inputSpecs[0]!.shape.at(-1)!]) : input(0);
      const g = shared ? dy.view([-1, dy.shape.at(-1)!]) : dy;
      give(1, transB ? matmul(g, a, { transA: true, transB: transA === 1 }) : matmul(a, g, { transA: transA === 0 }));
    }
  },
  samples: (r) => [
    { inputs: [r.randn(5, 7), r.randn(7, 3)], attrs: { transA: 0, transB: 0 } },
    { inputs: [r.randn(7, 5), r.randn(7, 3)], attrs: { transA: 1, transB: 0 } },
    { inputs: [r.randn(5, 7), r.randn(3, 7)], attrs: { transA: 0, transB: 1 } },
    { inputs: [r.randn(7, 5), r.randn(3, 7)], attrs: { transA: 1, transB: 1 } },
    { inputs: [r.randn(2, 3, 5, 7), r.randn(2, 3, 7, 3)], attrs: { transA: 0, transB: 0 }, note: 'batched' },
    { inputs: [r.randn(4, 5, 7), r.randn(7, 3)], attrs: { transA: 0, transB: 0 }, note: 'b shared by the batch' },
    { inputs: [r.randn(67, 129), r.randn(129, 53)], attrs: { transA: 0, transB: 0 }, differentiable: [], note: 'odd sizes' },
    { inputs: [r.randn(130, 65), r.randn(130, 97)], attrs: { transA: 1, transB: 0 }, differentiable: [], note: 'odd sizes, A transposed' },
    { inputs: [r.randn(1, 300), r.randn(75, 300)], attrs: { transA: 0, transB: 1 }, differentiable: [], note: 'one row' },
    { inputs: [r.randn(1, 2184), r.randn(75, 2184)], attrs: { transA: 0, transB: 1 }, differentiable: [], note: 'one long row' },
    { inputs: [r.randn(3, 1160), r.randn(77, 1160)], attrs: { transA: 0, transB: 1 }, differentiable: [], note: 'few long rows' },
    { inputs: [r.randn(3, 300), r.randn(300, 75)], attrs: { transA: 0, transB: 0 }, differentiable: [], note: 'few rows' },
  ],
});

export function matmul(a: Argument, b: Argument, { transA = false, transB = false } = {}): Tensor {
  return apply(matmulOp, [a, b], { transA: Number(transA), transB: Number(transB) })[0]!;
}

function dims(a: TensorSpec, b: TensorSpec, { transA, transB }: MatmulAttrs) {
  expect(a.shape.length >= 2, 'matmul', 'a with at least two axes', a);
  expect(b.shape.length >= 2, 'matmul', 'b with at least two axes', b);
  const [aRows, aCols] = a.shape.slice(-2) as [number, number];
  const [bRows, bCols] = b.shape.slice(-2) as [number, number];
  const [m, k] = transA ? [aCols, aRows] : [aRows, aCols];
  const [kb, n] = transB ? [bCols, bRows] : [bRows, bCols];
  return { m, n, k, kb, batch: a.shape.slice(0, -2) };
}
