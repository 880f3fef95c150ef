import { hostTensor } from '../tensor/host.js';
import { columns, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { geluBackward, geluOp } from './gelu.js';
import { launch } from './launch.js';
import { swigluOp } from './swiglu.js';

/** y = gelu(gate) * up over x [..., 2F] = [gate | up] (Shazeer, arXiv:2002.05202); gelu exactly or by tanh. */
export const gegluOp = defineOp<{ tanh: number }>({
  name: 'geglu',
  attrs: ['tanh'],
  infer: (inputs) => swigluOp.infer(inputs, {}),
  reference([x], attrs, [y]) {
    const gate = hostTensor([columns(y!)], 'f32');
    const act = hostTensor([columns(y!)], 'f32');
    const size = columns(y!);
    for (let row = 0; row < rowsOf(y!); row++) {
      gate.data.set(x!.data.subarray(row * 2 * size, row * 2 * size + size));
      geluOp.reference([gate], attrs, [act]);
      for (let i = 0; i < size; i++) y!.data[row * size + i] = act.data[i]! * x!.data[row * 2 * size + size + i]!;
    }
  },
  saves: { inputs: [0] },
  vjp({ attrs, input, grad, into }) {
    launch(gegluBackward, [grad(0)!, input(0)], [into(0).tensor], attrs);
  },
  samples: (r) => [
    { inputs: [r.randn(3, 10)], attrs: { tanh: 1 } },
    { inputs: [r.randn(3, 10)], attrs: { tanh: 0 } },
    { inputs: [r.uniform(-9, 9, 7, 202)], attrs: { tanh: 1 }, differentiable: [] },
    { inputs: [r.uniform(-9, 9, 37, 128)], attrs: { tanh: 0 }, differentiable: [] },
  ],
});

export const gegluBackward = defineOp<{ tanh: number }>({
  name: 'geglu_backward',
  attrs: ['tanh'],
  infer: ([, x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  reference([dy, x], attrs, [dx]) {
    const size = columns(dy!);
    const [gate, act, up, slope] = [0, 1, 2, 3].map(() => hostTensor([size], 'f32')) as [Host, Host, Host, Host];
    for (let row = 0; row < rowsOf(dy!); row++) {
      const at = row * 2 * size;
      gate.data.set(x!.data.subarray(at, at + size));
      geluOp.reference([gate], attrs, [act]);
      for (let i = 0; i < size; i++) up.data[i] = dy!.data[row * size + i]! * x!.data[at + size + i]!;
      geluBackward.reference([up, gate], attrs, [slope]);
      for (let i = 0; i < size; i++) {
        dx!.data[at + i] = slope.data[i]!;
        dx!.data[at + size + i] = dy!.data[row * size + i]! * act.data[i]!;
      }
    }
  },
  samples: (r) => [
    { inputs: [r.randn(7, 101), r.uniform(-9, 9, 7, 202)], attrs: { tanh: 1 } },
    { inputs: [r.randn(37, 64), r.uniform(-9, 9, 37, 128)], attrs: { tanh: 0 } },
  ],
});

type Host = ReturnType<typeof hostTensor>;
