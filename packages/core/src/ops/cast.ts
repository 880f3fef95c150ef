import type { DType } from '../dtype.js';
import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/** y = x in the dtype of y, rounded to nearest even. */
export const cast = defineOp<Record<never, number>>({
  name: 'cast',
  attrs: [],
  infer: ([x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  reference([x], _, [y]) {
    y!.data.set(x!.data);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 11)], attrs: {} },
    { inputs: [r.randn(1037)], attrs: {}, outputs: [hostTensor([1037], 'bf16')], note: 'to bf16' },
    { inputs: [r.randn(1037)], attrs: {}, outputs: [hostTensor([1037], 'f16')], note: 'to f16' },
    { inputs: [r.ints(500, 77)], attrs: {}, outputs: [hostTensor([77], 'f32')], note: 'from i32' },
  ],
});

/** A copy in another dtype, without gradient history. */
export function castTo(x: Tensor, dtype: DType): Tensor {
  const y = empty(x.device, x.shape, dtype);
  launch(cast, [x], [y], {});
  return y;
}
