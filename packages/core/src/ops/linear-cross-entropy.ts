import { type Argument, apply } from '../autograd/apply.js';
import { isRecording } from '../autograd/mode.js';
import { Parameter } from '../nn/parameter.js';
import { type HostTensor, hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

/**
 * Mean cross-entropy of softmax(x w') against labels, the head and the loss in one op: logits [N, V] exist only a chunk of
 * rows at a time, and backward computes them again. Inputs x [..., C] of N rows, w [V, C], labels i32 of N elements; outputs loss
 * f32 [] (mean over labels that are not ignoreIndex; 0 if there are none) and lse f32 [N]. With `softcap` a logit l is softcap
 * tanh(l / softcap); 0: as it is.
 */
export const linearCrossEntropyOp = defineOp<{ ignoreIndex: number; softcap: number }>({
  name: 'linear_cross_entropy',
  attrs: ['ignoreIndex', 'softcap'],
  infer([x, w, labels]) {
    expectFloat('linear_cross_entropy', 'x', x!);
    expect(w!.shape.length === 2 && columns(w!) === columns(x!), 'linear_cross_entropy', `w of shape [vocabulary, ${columns(x!)}]`, w!);
    const rows = rowsOf(x!);
    expect(
      labels!.dtype === 'i32' && rowsOf(labels!) * columns(labels!) === rows,
      'linear_cross_entropy',
      `${rows} labels of dtype i32`,
      labels!,
    );
    return [
      { shape: [], dtype: 'f32' },
      { shape: [rows], dtype: 'f32' },
    ];
  },
  reference([x, w, labels], { ignoreIndex, softcap }, [loss, lse]) {
    let sum = 0;
    let valid = 0;
    for (const [row, label] of labels!.data.entries()) {
      const logits = logitsOf(x!, w!, row, softcap);
      const max = logits.reduce((a, v) => Math.max(a, v), Number.NEGATIVE_INFINITY);
      lse!.data[row] = max + Math.log(logits.reduce((a, v) => a + Math.exp(v - max), 0));
      if (label === ignoreIndex) continue;
      sum += lse!.data[row]! - logits[label]!;
      valid++;
    }
    loss!.data[0] = valid === 0 ? 0 : sum / valid;
  },
  saves: { inputs: [0, 1, 2], outputs: [1] },
  vjp({ attrs, input, output, grad, into, wants }) {
    const dx = into(0).tensor;
    const dw = wants(1) ? into(1) : undefined;
    const inputs = [grad(0)!, input(0), input(1), input(2), output(1)];
    launch(linearCrossEntropyBackward, inputs, dw ? [dx, dw.tensor] : [dx], { ...attrs, accumulate: dw?.accumulate ?? 0 });
  },
  samples: (r) => [
    { inputs: [r.randn(6, 5), r.randn(7, 5), r.ints(7, 6)], attrs: { ignoreIndex: -100, softcap: 0 } },
    {
      inputs: [r.randn(2, 3, 5), r.randn(7, 5), hostTensor([2, 3], 'i32', [1, -100, 0, 6, -100, 3])],
      attrs: { ignoreIndex: -100, softcap: 0 },
      note: 'some ignored',
    },
    {
      inputs: [r.randn(2, 5), r.randn(7, 5), hostTensor([2], 'i32', [-100, -100])],
      attrs: { ignoreIndex: -100, softcap: 0 },
      differentiable: [],
      note: 'all ignored',
    },
    { inputs: [r.randn(150, 33), r.randn(301, 33), r.ints(301, 150)], attrs: { ignoreIndex: 0, softcap: 0 }, differentiable: [] },
    { inputs: [r.randn(6, 5), r.randn(7, 5), r.ints(7, 6)], attrs: { ignoreIndex: -100, softcap: 2 }, note: 'soft cap' },
    {
      inputs: [r.randn(150, 33), r.randn(301, 33), r.ints(301, 150)],
      attrs: { ignoreIndex: 0, softcap: 5 },
      differentiable: [],
      note: 'soft cap',
    },
  ],
});

/** Inputs dloss f32 [], x, w, labels, lse; outputs dx, and dw (added to when accumulate) unless the head is frozen. */
export const linearCrossEntropyBackward = defineOp<{ ignoreIndex: number; accumulate: number; softcap: number }>({
  name: 'linear_cross_entropy_backward',
  attrs: ['ignoreIndex', 'accumulate', 'softcap'],
  infer: ([, x, w]) => [x!, w!].map(({ shape, dtype }) => ({ shape, dtype })),
  reference([dloss, x, w, labels, lse], { ignoreIndex, accumulate, softcap }, [dx, dw]) {
    const size = columns(x!);
    const valid = labels!.data.reduce((n, label) => n + Number(label !== ignoreIndex), 0);
    dx!.data.fill(0);
    if (!accumulate) dw?.data.fill(0);
    for (const [row, label] of labels!.data.entries()) {
      if (label === ignoreIndex) continue;
      for (const [v, logit] of logitsOf(x!, w!, row, softcap).entries()) {
        const slope = softcap > 0 ? 1 - (logit / softcap) ** 2 : 1;
        const g = (dloss!.data[0]! / valid) * (Math.exp(logit - lse!.data[row]!) - Number(v === label)) * slope;
        for (let i = 0; i < size; i++) {
          dx!.data[row * size + i]! += g * w!.data[v * size + i]!;
          if (dw) dw.data[v * size + i]! += g * x!.data[row * size + i]!;
        }
      }
    }
  },
  samples: (r) =>
    [
      { x: r.randn(150, 33), w: r.randn(301, 33), labels: r.ints(301, 150), attrs: { ignoreIndex: 0, accumulate: 1, softcap: 0 } },
      { x: r.randn(6, 5), w: r.randn(7, 5), labels: r.ints(7, 6), attrs: { ignoreIndex: -100, accumulate: 0, softcap: 0 } },
      { x: r.randn(150, 33), w: r.randn(301, 33), labels: r.ints(301, 150), attrs: { ignoreIndex: 0, accumulate: 1, softcap: 5 } },
    ]
      .map(({ x, w, labels, attrs }) => {
        const [loss, lse] = [hostTensor([], 'f32'), hostTensor([rowsOf(x)], 'f32')];
        linearCrossEntropyOp.reference([x, w, labels], attrs, [loss, lse]);
        return { inputs: [hostTensor([], 'f32', [1.7]), x, w, labels, lse], attrs, outputs: [r.randn(...x.shape), r.randn(...w.shape)] };
      })
      .flatMap((sample) => [sample, { ...sample, outputs: sample.outputs.slice(0, 1), note: 'dx alone' }]),
});

/**
 * The same loss with the gradients made in the same pass, where the backend prefers that: the logits are computed and read once
 * for all. Outputs loss f32 [], valid f32 [] (labels that are not ignoreIndex), and the gradients of the sum of the rows' losses:
 * dx like x, dw f32 [V, C]. Backward scales them by dloss / valid.
 */
export const linearCrossEntropyFused = defineOp<{ ignoreIndex: number; softcap: number }>({
  name: 'linear_cross_entropy_fused',
  attrs: ['ignoreIndex', 'softcap'],
  infer([x, w, labels], attrs) {
    const [loss] = linearCrossEntropyOp.infer([x!, w!, labels!], attrs);
    return [loss!, loss!, { shape: x!.shape, dtype: x!.dtype }, { shape: w!.shape, dtype: 'f32' }];
  },
  reference([x, w, labels], attrs, [loss, valid, dx, dw]) {
    const lse = hostTensor([rowsOf(x!)], 'f32');
    linearCrossEntropyOp.reference([x!, w!, labels!], attrs, [loss!, lse]);
    valid!.data[0] = labels!.data.reduce((n, label) => n + Number(label !== attrs.ignoreIndex), 0);
    // A dloss of `valid` undoes the mean.
    linearCrossEntropyBackward.reference([valid!, x!, w!, labels!, lse], { ...attrs, accumulate: 0 }, [dx!, dw!]);
  },
  saves: { outputs: [1, 2, 3] },
  vjp({ output, grad, into }) {
    const [dx, dw] = [into(0), into(1)];
    launch(linearCrossEntropyFusedBackward, [grad(0)!, output(1), output(2), output(3)], [dx.tensor, dw.tensor], {
      accumulate: dw.accumulate,
    });
  },
  samples: (r) => linearCrossEntropyOp.samples(r),
  tolerance: 1e-2, // dw is f32, and yet a sum of products of 16-bit values where x is 16 bits wide
});

/** Inputs dloss f32 [], valid f32 [], dx, dw f32; outputs dx and dw times dloss / valid (the latter added to when accumulate). */
export const linearCrossEntropyFusedBackward = defineOp<{ accumulate: number }>({
  name: 'linear_cross_entropy_fused_backward',
  attrs: ['accumulate'],
  infer: ([, , dx, dw]) => [dx!, dw!].map(({ shape, dtype }) => ({ shape, dtype })),
  reference([dloss, valid, dx, dw], { accumulate }, [toDx, toDw]) {
    const scale = valid!.data[0] === 0 ? 0 : dloss!.data[0]! / valid!.data[0]!;
    for (const [i, value] of dx!.data.entries()) toDx!.data[i] = value * scale;
    for (const [i, value] of dw!.data.entries()) toDw!.data[i] = value * scale + (accumulate ? toDw!.data[i]! : 0);
  },
  samples: (r) =>
    [0, 1].map((accumulate) => ({
      inputs: [hostTensor([], 'f32', [1.7]), hostTensor([], 'f32', [13]), r.randn(150, 33), r.randn(301, 33)],
      attrs: { accumulate },
      outputs: [r.randn(150, 33), r.randn(301, 33)],
    })),
});

export interface LinearCrossEntropyOptions {
  /** A label that counts for nothing; default -100. */
  readonly ignoreIndex?: number;
  /** Logits l become softcap tanh(l / softcap); default 0: they stay. */
  readonly softcap?: number;
}

/** Mean cross-entropy (nats) of a language model's head. */
export function linearCrossEntropy(x: Argument, w: Argument, labels: Tensor, options: LinearCrossEntropyOptions = {}): Tensor {
  const attrs = { ignoreIndex: options.ignoreIndex ?? -100, softcap: options.softcap ?? 0 };
  const supported = () => {
    const types = linearCrossEntropyFused.infer([x, w, labels], attrs).map(({ dtype }) => dtype);
    return labels.device.backend.supports(linearCrossEntropyFused.name, [x.dtype, w.dtype, labels.dtype, ...types]);
  };
  if (!isRecording() || !wantsGradient(x) || !wantsGradient(w) || !supported()) {
    return apply(linearCrossEntropyOp, [x, w, labels], attrs)[0]!;
  }
  const [loss, ...kept] = apply(linearCrossEntropyFused, [x, w, labels], attrs);
  for (const tensor of kept) tensor.dispose(); // backward holds them, and frees dw (as large as w) as soon as it has run
  return loss!;
}

function wantsGradient(argument: Argument): boolean {
  return argument instanceof Parameter ? argument.requiresGrad : argument.node !== null;
}

function logitsOf(x: HostTensor, w: HostTensor, row: number, softcap: number): Float64Array {
  const size = columns(x);
  return Float64Array.from({ length: w.shape[0]! }, (_, v) => {
    let sum = 0;
    for (let i = 0; i < size; i++) sum += x.data[row * size + i]! * w.data[v * size + i]!;
    return softcap > 0 ? softcap * Math.tanh(sum / softcap) : sum;
  });
}
