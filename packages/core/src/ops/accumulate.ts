import { hostTensor } from '../tensor/host.js';
import { defineOp } from './define-op.js';

/** acc += alpha * x in f32, rounded to the dtype of acc. The dtypes may differ. */
export const accumulate = defineOp<{ alpha: number }>({
  name: 'accumulate',
  attrs: ['alpha'],
  infer: ([x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  reference([x], { alpha }, [acc]) {
    for (let i = 0; i < acc!.data.length; i++) acc!.data[i]! += alpha * x!.data[i]!;
  },
  samples: (r) => [
    { inputs: [r.randn(3, 11)], attrs: { alpha: 1 }, outputs: [r.randn(3, 11)] },
    { inputs: [r.randn(1037)], attrs: { alpha: 0.25 }, outputs: [hostTensor([1037], 'f32', r.randn(1037).data)] },
  ],
});
