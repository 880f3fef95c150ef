import { type HostTensor, hostTensor } from '../tensor/host.js';
import type { AdamwAttrs } from './adamw.js';
import { expect } from './check.js';
import { defineOp } from './define-op.js';
import { CODE_BLOCK, codeBoundaries, codeValues, nearestCode } from './dynamic-code.js';
import type { Random } from './random-samples.js';

const firstValues = codeValues(true);
const firstBoundaries = codeBoundaries(firstValues);
const secondValues = codeValues(false);
const secondBoundaries = codeBoundaries(secondValues);

/**
 * One AdamW step over a flat range whose moments are kept in 8 bits (Dettmers et al., arXiv:2110.02861): blocks of 256 elements, counted
 * from the range's beginning, share a scale, their largest magnitude. Inputs grad [n], coefficient f32 [1]; outputs, all read and
 * written, master [n] in f32 or bf16, first moment u8 [n], its scales f32 [ceil(n / 256)], second moment u8 [n], its scales, and
 * optionally the low-precision copy [n] of the master. Weights move by the moments before these are rounded; a second moment
 * that is not zero never becomes zero, which would let the next step divide by eps alone. Zeros everywhere are moments of zero.
 * The gradient is multiplied by the coefficient first; a NaN coefficient leaves everything untouched.
 */
export const adamw8bitOp = defineOp<AdamwAttrs>({
  name: 'adamw_8bit',
  attrs: ['lr', 'beta1', 'beta2', 'eps', 'weightDecay', 'bias1', 'bias2', 'decoupled'],
  // A code may come out as its neighbour where f32 and double fall on different sides of a boundary.
  codeSteps: 1,
  infer([grad, coefficient]) {
    expect(coefficient!.dtype === 'f32', 'adamw_8bit', 'an f32 coefficient', coefficient!);
    const { shape } = grad!;
    const codes = { shape, dtype: 'u8' as const };
    const scales = { shape: [Math.ceil(shape[0]! / CODE_BLOCK)], dtype: 'f32' as const };
    return [{ shape, dtype: 'f32' }, codes, scales, codes, scales];
  },
  reference([grad, coefficient], attrs, [master, first, firstScales, second, secondScales, low]) {
    const { lr, beta1, beta2, eps, weightDecay, bias1, bias2, decoupled } = attrs;
    if (Number.isNaN(coefficient!.data[0]!)) return;
    const n = grad!.data.length;
    const m = new Float64Array(n);
    const v = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      const block = Math.floor(i / CODE_BLOCK);
      let p = master!.data[i]!;
      let g = grad!.data[i]! * coefficient!.data[0]!;
      if (!decoupled) g += weightDecay * p;
      m[i] = beta1 * firstValues[first!.data[i]!]! * firstScales!.data[block]! + (1 - beta1) * g;
      v[i] = beta2 * secondValues[second!.data[i]!]! * secondScales!.data[block]! + (1 - beta2) * g * g;
      if (decoupled) p *= 1 - lr * weightDecay;
      p -= (lr / bias1) * (m[i]! / (Math.sqrt(v[i]!) / Math.sqrt(bias2) + eps));
      master!.data[i] = p;
      if (low) low.data[i] = p;
    }
    keep(m, first!, firstScales!, firstBoundaries);
    keep(v, second!, secondScales!, secondBoundaries);
    for (let i = 0; i < n; i++) if (v[i]! > 0) second!.data[i] = Math.max(second!.data[i]!, 1);
  },
  samples: (r) => {
    const attrs = { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, bias1: 1 - 0.9 ** 3, bias2: 1 - 0.99 ** 3 };
    const on = { ...attrs, decoupled: 1 };
    const inputs = (n: number, coefficient = 0.5) => [r.randn(n), hostTensor([1], 'f32', [coefficient])];
    const fresh = (n: number) => {
      const scales = () => hostTensor([Math.ceil(n / CODE_BLOCK)], 'f32');
      return [r.randn(n), hostTensor([n], 'u8'), scales(), hostTensor([n], 'u8'), scales()];
    };
    const [, ...kept] = used(r, 600);
    return [
      { inputs: inputs(600), attrs: on, outputs: used(r, 600) },
      { inputs: inputs(600), attrs: { ...attrs, decoupled: 0 }, outputs: used(r, 600) },
      { inputs: inputs(777), attrs: on, outputs: fresh(777), note: 'moments of zero' },
      { inputs: inputs(600), attrs: on, outputs: [...used(r, 600), hostTensor([600], 'bf16')], note: 'with a bf16 copy' },
      { inputs: inputs(512), attrs: on, outputs: [...used(r, 512), hostTensor([512], 'f16')], note: 'with an f16 copy' },
      { inputs: inputs(600), attrs: on, outputs: [hostTensor([600], 'bf16', r.randn(600).data), ...kept], note: 'bf16 weights' },
      { inputs: [hostTensor([300], 'f32'), hostTensor([1], 'f32', [1])], attrs: on, outputs: fresh(300), note: 'no gradient ever' },
      { inputs: inputs(600, Number.NaN), attrs: on, outputs: used(r, 600), note: 'overflow' },
    ];
  },
});

/** The values that codes u8 [n] with scales f32 [ceil(n / 256)] stand for, f32 [n]. `signed`: a first moment's codes (1) or a second's (0). */
export const decode8bit = defineOp<{ signed: number }>({
  name: 'decode_8bit',
  attrs: ['signed'],
  dtypes: ['f32'],
  infer: ([codes]) => [{ shape: codes!.shape, dtype: 'f32' }],
  reference([codes, scales], { signed }, [y]) {
    const values = signed ? firstValues : secondValues;
    for (let i = 0; i < y!.data.length; i++) y!.data[i] = values[codes!.data[i]!]! * scales!.data[Math.floor(i / CODE_BLOCK)]!;
  },
  samples: (r) =>
    [
      { inputs: [r.ints(256, 600), r.uniform(0, 2, 3)], attrs: { signed: 1 } },
      { inputs: [r.ints(256, 512), r.uniform(0, 2, 2)], attrs: { signed: 0 } },
    ].map(({ inputs: [codes, scales], attrs }) => ({ inputs: [{ ...codes!, dtype: 'u8' as const }, scales!], attrs, differentiable: [] })),
});

/** Weights, and moments in the middle of a training. */
function used(r: Random, n: number): HostTensor[] {
  const blocks = Math.ceil(n / CODE_BLOCK);
  const codes = () => ({ ...r.ints(256, n), dtype: 'u8' as const });
  return [r.randn(n), codes(), r.uniform(0.5, 2, blocks), codes(), r.uniform(0.5, 2, blocks)];
}

function keep(moments: Float64Array, codes: HostTensor, scales: HostTensor, boundaries: Float32Array): void {
  for (let block = 0; block < scales.data.length; block++) {
    const end = Math.min((block + 1) * CODE_BLOCK, moments.length);
    let scale = 0;
    for (let i = block * CODE_BLOCK; i < end; i++) scale = Math.max(scale, Math.abs(moments[i]!));
    scales.data[block] = scale;
    for (let i = block * CODE_BLOCK; i < end; i++) codes.data[i] = nearestCode(boundaries, scale === 0 ? 0 : moments[i]! / scale);
  }
}
