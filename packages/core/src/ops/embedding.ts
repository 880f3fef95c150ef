import { type Argument, apply } from '../autograd/apply.js';
import { DeepSpeedError } from '../errors.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** y[..., C] = table[ids], table [V, C], ids i32 [...]. */
export const embeddingOp = defineOp<Record<never, number>>({
  name: 'embedding',
  attrs: [],
  infer([table, ids]) {
    expectFloat('embedding', 'table', table!);
    expect(table!.shape.length === 2, 'embedding', 'a table of shape [vocabulary, size]', table!);
    expect(ids!.dtype === 'i32', 'embedding', 'ids of dtype i32', ids!);
    return [{ shape: [...ids!.shape, columns(table!)], dtype: table!.dtype }];
  },
  reference([table, ids], _, [y]) {
    const size = columns(table!);
    for (const [row, id] of ids!.data.entries()) {
      if (id < 0 || id >= table!.shape[0]!) {
        throw new DeepSpeedError('ERR_KERNEL', `[embedding] id ${id} at position ${row} is outside the table's 0..${table!.shape[0]! - 1}`);
      }
      for (let i = 0; i < size; i++) y!.data[row * size + i] = table!.data[id * size + i]!;
    }
  },
  saves: { inputs: [1] },
  vjp({ input, grad, into }) {
    const { tensor, accumulate } = into(0);
    launch(embeddingBackward, [grad(0)!, input(1)], [tensor], { accumulate });
  },
  samples: (r) => [
    { inputs: [r.randn(7, 5), r.ints(7, 2, 3)], attrs: {} },
    { inputs: [r.randn(300, 65), r.ints(300, 257)], attrs: {}, differentiable: [] },
  ],
});

/** dtable[id] += dy in token order; starts from zero unless accumulate. */
export const embeddingBackward = defineOp<{ accumulate: number }>({
  name: 'embedding_backward',
  attrs: ['accumulate'],
  infer: ([dy]) => [{ shape: dy!.shape, dtype: dy!.dtype }],
  reference([dy, ids], { accumulate }, [dtable]) {
    const size = columns(dy!);
    if (!accumulate) dtable!.data.fill(0);
    for (const [row, id] of ids!.data.entries()) {
      for (let i = 0; i < size; i++) dtable!.data[id * size + i]! += dy!.data[row * size + i]!;
    }
  },
  samples: (r) => [
    { inputs: [r.randn(9, 5), r.ints(4, 9)], attrs: { accumulate: 1 }, outputs: [r.randn(4, 5)] },
    { inputs: [r.randn(257, 65), r.ints(40, 257)], attrs: { accumulate: 0 }, outputs: [r.randn(40, 65)] },
  ],
});

export function embedding(table: Argument, ids: Tensor): Tensor {
  return apply(embeddingOp, [table, ids], {})[0]!;
}
