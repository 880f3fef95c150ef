import { type HostTensor, hostTensor } from '../tensor/host.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';

export interface AdamwAttrs extends Record<string, number> {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** 1 - beta1^t and 1 - beta2^t, computed in double by the host. */
  bias1: number;
  bias2: number;
  /** 1: AdamW, decay apart from the gradient; 0: Adam with L2. */
  decoupled: number;
}

/**
 * One AdamW step over a flat range (Loshchilov and Hutter, arXiv:1711.05101). Inputs grad [n], coefficient f32 [1]; outputs, all
 * read and written, master [n], first and second moment [n], and optionally the low-precision copy [n] of the master. Master and moments
 * are f32 or, each time rounded to nearest, bf16; both moments alike, and bf16 weights have no copy. The gradient is multiplied by the coefficient first; a NaN coefficient (overflow) leaves everything untouched. Every
 * element's arithmetic is the same wherever it lies in the range: ZeRO cuts ranges differently at each stage.
 */
export const adamwOp = defineOp<AdamwAttrs>({
  name: 'adamw',
  attrs: ['lr', 'beta1', 'beta2', 'eps', 'weightDecay', 'bias1', 'bias2', 'decoupled'],
  infer([grad, coefficient]) {
    expect(coefficient!.dtype === 'f32', 'adamw', 'an f32 coefficient', coefficient!);
    return [0, 1, 2].map(() => ({ shape: grad!.shape, dtype: 'f32' as const }));
  },
  reference([grad, coefficient], { lr, beta1, beta2, eps, weightDecay, bias1, bias2, decoupled }, [master, m, v, low]) {
    if (Number.isNaN(coefficient!.data[0]!)) return;
    for (let i = 0; i < grad!.data.length; i++) {
      let p = master!.data[i]!;
      let g = grad!.data[i]! * coefficient!.data[0]!;
      if (!decoupled) g += weightDecay * p;
      m!.data[i] = beta1 * m!.data[i]! + (1 - beta1) * g;
      v!.data[i] = beta2 * v!.data[i]! + (1 - beta2) * g * g;
      if (decoupled) p *= 1 - lr * weightDecay;
      p -= (lr / bias1) * (m!.data[i]! / (Math.sqrt(v!.data[i]!) / Math.sqrt(bias2) + eps));
      master!.data[i] = p;
      if (low) low.data[i] = p;
    }
  },
  samples: (r) => {
    const state = () => [r.randn(1037), r.randn(1037), r.uniform(0, 1, 1037)];
    const attrs = { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, bias1: 1 - 0.9 ** 3, bias2: 1 - 0.99 ** 3 };
    const one = hostTensor([1], 'f32', [0.5]);
    const short = ({ shape, data }: HostTensor) => hostTensor(shape, 'bf16', data);
    return [
      { inputs: [r.randn(1037), one], attrs: { ...attrs, decoupled: 1 }, outputs: state() },
      { inputs: [r.randn(1037), one], attrs: { ...attrs, decoupled: 0 }, outputs: state() },
      {
        inputs: [r.randn(1037), one],
        attrs: { ...attrs, decoupled: 1 },
        outputs: [...state(), hostTensor([1037], 'bf16')],
        note: 'with a bf16 copy',
      },
      {
        inputs: [r.randn(5003), one],
        attrs: { ...attrs, decoupled: 1 },
        outputs: [r.randn(5003), r.randn(5003), r.uniform(0, 1, 5003), hostTensor([5003], 'f16')],
        note: 'with an f16 copy',
      },
      { inputs: [r.randn(1037), one], attrs: { ...attrs, decoupled: 1 }, outputs: state().map(short), note: 'all in bf16' },
      {
        inputs: [r.randn(1037), one],
        attrs: { ...attrs, decoupled: 1 },
        outputs: [r.randn(1037), ...state().slice(1).map(short), hostTensor([1037], 'bf16')],
        note: 'bf16 moments, with a bf16 copy',
      },
      {
        inputs: [r.randn(1037), one],
        attrs: { ...attrs, decoupled: 0 },
        outputs: [short(r.randn(1037)), ...state().slice(1)],
        note: 'bf16 weights with f32 moments',
      },
      {
        inputs: [r.randn(1037), hostTensor([1], 'f32', [Number.NaN])],
        attrs: { ...attrs, decoupled: 1 },
        outputs: state(),
        note: 'overflow',
      },
    ];
  },
});
