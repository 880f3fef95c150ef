import { hostTensor } from '../tensor/host.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';

export interface SgdAttrs extends Record<string, number> {
  lr: number;
  /** 0: there is no momentum buffer. */
  momentum: number;
  /** The gradient enters the momentum buffer with 1 - dampening. PyTorch takes it whole at the first step: dampening is 0 then. */
  dampening: number;
  /** 1: look ahead by one step of momentum (Nesterov; the form of Sutskever et al., 2013). */
  nesterov: number;
  /** Times the weight, added to the gradient. */
  weightDecay: number;
}

/**
 * One step of gradient descent over a flat range, PyTorch's SGD. Inputs grad [n], coefficient f32 [1]; outputs, all read and written,
 * master [n], with momentum its buffer [n], each f32 or bf16, and optionally the low-precision copy [n] of the master. The gradient is multiplied
 * by the coefficient first; a NaN coefficient (overflow) leaves everything untouched.
 */
export const sgdOp = defineOp<SgdAttrs>({
  name: 'sgd',
  attrs: ['lr', 'momentum', 'dampening', 'nesterov', 'weightDecay'],
  infer([grad, coefficient], { momentum }) {
    expect(coefficient!.dtype === 'f32', 'sgd', 'an f32 coefficient', coefficient!);
    const flat = { shape: grad!.shape, dtype: 'f32' as const };
    return momentum === 0 ? [flat] : [flat, flat];
  },
  reference([grad, coefficient], { lr, momentum, dampening, nesterov, weightDecay }, [master, ...rest]) {
    if (Number.isNaN(coefficient!.data[0]!)) return;
    const buffer = momentum === 0 ? undefined : rest.shift();
    const [low] = rest;
    for (let i = 0; i < grad!.data.length; i++) {
      let g = grad!.data[i]! * coefficient!.data[0]! + weightDecay * master!.data[i]!;
      if (buffer) {
        buffer.data[i] = momentum * buffer.data[i]! + (1 - dampening) * g;
        g = nesterov ? g + momentum * buffer.data[i]! : buffer.data[i]!;
      }
      master!.data[i]! -= lr * g;
      if (low) low.data[i] = master!.data[i]!;
    }
  },
  samples: (r) => {
    const attrs = { lr: 1e-2, momentum: 0.9, dampening: 0, nesterov: 0, weightDecay: 0.1 };
    const inputs = (coefficient = 0.5) => [r.randn(1037), hostTensor([1], 'f32', [coefficient])];
    const state = () => [r.randn(1037), r.randn(1037)];
    const low = (dtype: 'bf16' | 'f16') => hostTensor([1037], dtype);
    return [
      { inputs: inputs(), attrs: { ...attrs, momentum: 0 }, outputs: [r.randn(1037)], note: 'without momentum' },
      {
        inputs: inputs(),
        attrs: { ...attrs, momentum: 0 },
        outputs: [r.randn(1037), low('f16')],
        note: 'without momentum, with an f16 copy',
      },
      { inputs: inputs(), attrs: { ...attrs, dampening: 0.3 }, outputs: state() },
      { inputs: inputs(), attrs: { ...attrs, nesterov: 1 }, outputs: [...state(), low('bf16')], note: 'Nesterov, with a bf16 copy' },
      { inputs: inputs(), attrs, outputs: state().map(({ data }) => hostTensor([1037], 'bf16', data)), note: 'all in bf16' },
      { inputs: inputs(Number.NaN), attrs, outputs: state(), note: 'overflow' },
    ];
  },
});
