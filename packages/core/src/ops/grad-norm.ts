import { hostTensor } from '../tensor/host.js';
import { defineOp } from './define-op.js';

/**
 * out f32 [1] = sum of x^2: doubles over chunks of 4,096 elements, 16 running sums each, then trees over 1,024 chunks, so that
 * the bits depend on the values alone: not on threads, machines or the kind of device.
 */
export const sumSquares = defineOp<Record<never, number>>({
  name: 'sum_squares',
  attrs: [],
  infer: () => [{ shape: [1], dtype: 'f32' }],
  reference([x], _, [out]) {
    out!.data[0] = x!.data.reduce((sum, v) => sum + v * v, 0);
  },
  samples: (r) => [
    { inputs: [r.randn(10007)], attrs: {} },
    { inputs: [r.randn(5)], attrs: {} },
  ],
});

/**
 * norm = scale * sqrt(sum of partials), and the factor that clips gradients to maxNorm (DeepSpeed's rule, which is PyTorch's):
 * scale * min(1, maxNorm / (norm + 1e-6)); NaN where the norm is not finite, which makes optimizers leave everything as it is.
 * maxNorm 0: no clipping.
 */
export const gradNorm = defineOp<{ maxNorm: number; scale: number }>({
  name: 'grad_norm',
  attrs: ['maxNorm', 'scale'],
  infer: () => [
    { shape: [1], dtype: 'f32' },
    { shape: [1], dtype: 'f32' },
  ],
  reference([partials], { maxNorm, scale }, [norm, coefficient]) {
    const value = scale * Math.sqrt(partials!.data.reduce((sum, v) => sum + v, 0));
    norm!.data[0] = value;
    coefficient!.data[0] = !Number.isFinite(value) ? Number.NaN : maxNorm <= 0 ? scale : scale * Math.min(1, maxNorm / (value + 1e-6));
  },
  samples: (r) => [
    { inputs: [r.uniform(0, 2, 17)], attrs: { maxNorm: 1, scale: 1 } },
    { inputs: [r.uniform(0, 2, 17)], attrs: { maxNorm: 100, scale: 0.5 } },
    { inputs: [r.uniform(0, 2, 17)], attrs: { maxNorm: 0, scale: 2 } },
    { inputs: [hostTensor([2], 'f32', [1, Number.POSITIVE_INFINITY])], attrs: { maxNorm: 1, scale: 1 }, note: 'not finite' },
  ],
});
