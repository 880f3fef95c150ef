import { defineOp } from './define-op.js';

/** y = x, any dtype, equal counts of elements. */
export const copy = defineOp<Record<never, number>>({
  name: 'copy',
  attrs: [],
  infer: ([x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  reference([x], _, [y]) {
    y!.data.set(x!.data);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 11)], attrs: {} },
    { inputs: [r.ints(1000, 1037)], attrs: {} },
  ],
});
