import { empty } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** y = ids + by, of i32: rows of a table that stand behind `by` others. */
export const shiftIdsOp = defineOp<{ by: number }>({
  name: 'shift_ids',
  attrs: ['by'],
  infer([ids]) {
    expect(ids!.dtype === 'i32', 'shift_ids', 'ids of dtype i32', ids!);
    return [{ shape: ids!.shape, dtype: 'i32' }];
  },
  reference([ids], { by }, [y]) {
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = ids!.data[i]! + by;
  },
  samples: (r) => [{ inputs: [r.ints(100, 7, 33)], attrs: { by: 2 } }],
});

export function shiftIds(ids: Tensor, by: number): Tensor {
  const y = empty(ids.device, ids.shape, 'i32');
  launch(shiftIdsOp, [ids], [y], { by });
  return y;
}
