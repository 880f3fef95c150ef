import { type Argument, apply } from '../autograd/apply.js';
import { hostTensor } from '../tensor/host.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf, withColumns } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';

interface HeadNormAttrs extends Record<string, number> {
  heads: number;
  kvHeads: number;
  headDim: number;
  eps: number;
  /** Added to the weights. */
  offset: number;
}

const attrNames = ['heads', 'kvHeads', 'headDim', 'eps', 'offset'] as const;

/**
 * RMS normalisation of every query and every key head (Henry et al., arXiv:2010.04245) in packed qkv [.., (heads + 2 kvHeads) headDim];
 * value heads are copied. Inputs qkv, wq [headDim], wk [headDim]; outputs y, stats f32 [.., heads + kvHeads] = 1/rms.
 */
export const headNormOp = defineOp<HeadNormAttrs>({
  name: 'head_norm',
  attrs: attrNames,
  infer([qkv, ...weights], { heads, kvHeads, headDim }) {
    expectFloat('head_norm', 'qkv', qkv!);
    const width = (heads + 2 * kvHeads) * headDim;
    expect(columns(qkv!) === width, 'head_norm', `qkv with ${width} columns`, qkv!);
    for (const w of weights) expect(w.shape.length === 1 && w.shape[0] === headDim, 'head_norm', `weights of shape [${headDim}]`, w);
    return [
      { shape: qkv!.shape, dtype: qkv!.dtype },
      { shape: withColumns(qkv!.shape, heads + kvHeads), dtype: 'f32' },
    ];
  },
  reference([qkv, wq, wk], attrs, [y, stats]) {
    const { headDim, eps, offset } = attrs;
    y!.data.set(qkv!.data);
    eachHead(qkv!, attrs, ({ at, head, isKey }) => {
      const w = isKey ? wk! : wq!;
      let squares = 0;
      for (let i = 0; i < headDim; i++) squares += qkv!.data[at + i]! ** 2;
      const rstd = 1 / Math.sqrt(squares / headDim + eps);
      stats!.data[head] = rstd;
      for (let i = 0; i < headDim; i++) y!.data[at + i] = qkv!.data[at + i]! * rstd * (w.data[i]! + offset);
    });
  },
  saves: { inputs: [0, 1, 2], outputs: [1] },
  vjp({ attrs, input, output, grad, into }) {
    const [q, k] = [into(1), into(2)];
    const accumulate = { accumulateQ: q.accumulate, accumulateK: k.accumulate };
    const inputs = [grad(0)!, input(0), input(1), input(2), output(1)];
    launch(headNormBackward, inputs, [into(0).tensor, q.tensor, k.tensor], { ...attrs, ...accumulate });
  },
  samples: (r) => [
    { inputs: [r.randn(2, 3, 4 * 6), r.randn(6), r.randn(6)], attrs: shape(2, 1, 6) },
    { inputs: [r.randn(1, 3, 3 * 8), r.randn(8), r.randn(8)], attrs: { ...shape(1, 1, 8), offset: 1 }, note: 'weights less one' },
    { inputs: [r.randn(37, 8 * 128), r.randn(128), r.randn(128)], attrs: shape(4, 2, 128), differentiable: [] },
    { inputs: [r.randn(5, 5 * 256), r.randn(256), r.randn(256)], attrs: shape(3, 1, 256), differentiable: [] },
    { inputs: [r.randn(19, 3 * 33), r.randn(33), r.randn(33)], attrs: shape(1, 1, 33), differentiable: [] },
  ],
});

/** Inputs dy, qkv, wq, wk, stats; outputs dqkv, and dwq and dwk, each added to when its accumulate says so. */
export const headNormBackward = defineOp<HeadNormAttrs & { accumulateQ: number; accumulateK: number }>({
  name: 'head_norm_backward',
  attrs: [...attrNames, 'accumulateQ', 'accumulateK'],
  infer: ([, qkv, wq, wk]) => [qkv!, wq!, wk!].map(({ shape, dtype }) => ({ shape, dtype })),
  reference([dy, qkv, wq, wk, stats], attrs, [dqkv, dwq, dwk]) {
    const { headDim, offset, accumulateQ, accumulateK } = attrs;
    if (!accumulateQ) dwq!.data.fill(0);
    if (!accumulateK) dwk!.data.fill(0);
    dqkv!.data.set(dy!.data);
    eachHead(qkv!, attrs, ({ at, head, isKey }) => {
      const [w, dw] = isKey ? [wk!, dwk!] : [wq!, dwq!];
      const rstd = stats!.data[head]!;
      let dot = 0;
      for (let i = 0; i < headDim; i++) {
        const xhat = qkv!.data[at + i]! * rstd;
        dot += dy!.data[at + i]! * (w.data[i]! + offset) * xhat;
        dw.data[i]! += dy!.data[at + i]! * xhat;
      }
      for (let i = 0; i < headDim; i++) {
        const xhat = qkv!.data[at + i]! * rstd;
        dqkv!.data[at + i] = rstd * (dy!.data[at + i]! * (w.data[i]! + offset) - (xhat * dot) / headDim);
      }
    });
  },
  samples: (r) =>
    [shape(2, 1, 6), { ...shape(1, 1, 33), offset: 1 }, shape(4, 2, 128), shape(3, 1, 256)].map((attrs, i) => {
      const { heads, kvHeads, headDim } = attrs;
      const qkv = r.randn(70, (heads + 2 * kvHeads) * headDim);
      const weights = [r.randn(headDim), r.randn(headDim)] as const;
      const [y, stats] = [hostTensor(qkv.shape, 'f32'), hostTensor([70, heads + kvHeads], 'f32')];
      headNormOp.reference([qkv, ...weights], attrs, [y, stats]);
      return {
        inputs: [r.randn(...qkv.shape), qkv, ...weights, stats],
        attrs: { ...attrs, accumulateQ: i % 2, accumulateK: 1 - (i % 2) },
        outputs: [r.randn(...qkv.shape), r.randn(headDim), r.randn(headDim)],
      };
    }),
});

export interface HeadNormOptions {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly eps?: number;
  /** Added to the weights; default 0. */
  readonly offset?: number;
}

/** Normalises the query and key heads of packed qkv [.., (heads + 2 kvHeads) headDim], each by its root mean square. */
export function headNorm(qkv: Argument, wq: Argument, wk: Argument, options: HeadNormOptions): Tensor {
  const { heads, kvHeads, headDim, eps = 1e-6, offset = 0 } = options;
  return apply(headNormOp, [qkv, wq, wk], { heads, kvHeads, headDim, eps, offset })[0]!;
}

/** Offset of each query and key head in qkv, and its index into the statistics. */
function eachHead(
  qkv: TensorSpec,
  { heads, kvHeads, headDim }: HeadNormAttrs,
  body: (at: { at: number; head: number; isKey: boolean }) => void,
): void {
  const normed = heads + kvHeads;
  for (let row = 0; row < rowsOf(qkv); row++) {
    for (let h = 0; h < normed; h++) body({ at: row * columns(qkv) + h * headDim, head: row * normed + h, isKey: h >= heads });
  }
}

function shape(heads: number, kvHeads: number, headDim: number): HeadNormAttrs {
  return { heads, kvHeads, headDim, eps: 1e-6, offset: 0 };
}
