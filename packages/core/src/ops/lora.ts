import { type Argument, apply } from '../autograd/apply.js';
import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, rowsOf, withColumns } from './check.js';
import { copy } from './copy.js';
import { defineOp, type VjpContext } from './define-op.js';
import { type DropoutAttrs, dropoutKey, dropoutOp } from './dropout.js';
import { launch } from './launch.js';
import { linearDw, linearDx, linearOp } from './linear.js';
import { scaleOp } from './scale.js';

/** Where the columns of the layer begin in y, what its update is multiplied with, and the mask over its input. */
interface LoraAttrs extends DropoutAttrs {
  scale: number;
  columnOffset: number;
}

const whole = { n: 1, hasBias: 0, layout: 0 };

/**
 * A low-rank update of a linear layer (Hu et al., arXiv:2106.09685): y' = y + scale dropout(x) A' B' on the layer's columns of y. Inputs
 * y [..., S], x [..., I], A [r, I], B [O, r]; outputs y' and u = scale dropout(x) A' [..., r]. Written over y where nobody else has
 * it. Backward keeps x and u; the mask is drawn again. The layer's own weight has no part in it: frozen, it gets no gradient.
 */
export const loraOp = defineOp<LoraAttrs>({
  name: 'lora',
  attrs: ['scale', 'columnOffset', 'p', 'seedLow', 'seedHigh', 'step', 'stream'],
  takesOver: 0,
  infer([y, x, a, b], { columnOffset }) {
    const [rank, inputs] = a!.shape;
    expect(inputs === columns(x!) && a!.dtype === x!.dtype, 'lora', `A of ${columns(x!)} inputs and dtype ${x!.dtype}`, a!);
    expect(b!.shape.length === 2 && b!.shape[1] === rank && b!.dtype === x!.dtype, 'lora', `B of rank ${rank} and dtype ${x!.dtype}`, b!);
    expect(rowsOf(y!) === rowsOf(x!) && y!.dtype === x!.dtype, 'lora', `y with ${rowsOf(x!)} rows of dtype ${x!.dtype}`, y!);
    const end = columnOffset + b!.shape[0]!;
    expect(end <= columns(y!), 'lora', `y with at least ${end} columns`, y!);
    return [y!, { shape: withColumns(x!.shape, rank!), dtype: x!.dtype }];
  },
  reference([y, x, a, b], { scale, columnOffset, ...mask }, [sum, u]) {
    const dropped = hostTensor(x!.shape, x!.dtype);
    dropoutOp.reference([x!], mask as DropoutAttrs, [dropped]);
    linearOp.reference([dropped, a!], whole, [u!]);
    for (let i = 0; i < u!.data.length; i++) u!.data[i]! *= scale;
    sum!.data.set(y!.data);
    linearAdd.reference([u!, b!], { columnOffset }, [sum!]);
  },
  compose([y, x, a, b], attrs, [sum, u]) {
    const dropped = masked(x!, attrs);
    launch(linearOp, [dropped, a!], [u!], whole);
    if (dropped !== x) dropped.dispose();
    launch(scaleOp, [u!], [u!], { alpha: attrs.scale });
    if (sum!.handle !== y!.handle) launch(copy, [y!], [sum!], {});
    launch(linearAdd, [u!, b!], [sum!], { columnOffset: attrs.columnOffset });
  },
  saves: { inputs: [1, 2, 3], outputs: [1] },
  vjp(context) {
    const { attrs, input, output, grad, wants, into, give } = context;
    const { scale, columnOffset } = attrs;
    const dy = grad(0)!;
    if (wants(3)) {
      const { tensor, accumulate } = into(3);
      launch(linearDw, [dy, output(1)], [tensor], { n: 1, columnOffset, layout: 0, accumulate });
    }
    if (wants(1) || wants(2)) {
      const u = output(1);
      const du = empty(u.device, u.shape, u.dtype);
      launch(linearDx, [dy, input(3)], [du], { n: 1, layout: 0, columnOffset });
      launch(scaleOp, [du], [du], { alpha: scale });
      gradientsBelow(context, du);
      du.dispose();
    }
    give(0, dy);
  },
  samples: (r) => {
    const attrs = { scale: 0.5, columnOffset: 0, p: 0, seedLow: 7, seedHigh: 1, step: 3, stream: 2 };
    return [
      { inputs: [r.randn(2, 5, 7), r.randn(2, 5, 6), r.randn(3, 6), r.randn(7, 3)], attrs },
      { inputs: [r.randn(5, 19), r.randn(5, 8), r.randn(2, 8), r.randn(6, 2)], attrs: { ...attrs, columnOffset: 9 }, note: 'some columns' },
      { inputs: [r.randn(6, 9), r.randn(6, 8), r.randn(4, 8), r.randn(9, 4)], attrs: { ...attrs, p: 0.3 }, note: 'dropout' },
      {
        inputs: [r.randn(70, 200), r.randn(70, 96), r.randn(16, 96), r.randn(130, 16)],
        attrs: { ...attrs, columnOffset: 64 },
        differentiable: [],
      },
    ];
  },
});

/** y += x W' on W's columns of y, from columnOffset on: x [..., K], W [O, K], y [..., S] read and written. */
export const linearAdd = defineOp<{ columnOffset: number }>({
  name: 'linear_add',
  attrs: ['columnOffset'],
  infer: ([x, w], { columnOffset }) => [{ shape: withColumns(x!.shape, columnOffset + w!.shape[0]!), dtype: x!.dtype }],
  reference([x, w], { columnOffset }, [y]) {
    const [size, total] = [columns(x!), columns(y!)];
    for (let row = 0; row < rowsOf(x!); row++) {
      for (let o = 0; o < w!.shape[0]!; o++) {
        let sum = 0;
        for (let k = 0; k < size; k++) sum += x!.data[row * size + k]! * w!.data[o * size + k]!;
        y!.data[row * total + columnOffset + o]! += sum;
      }
    }
  },
  samples: (r) => [
    { inputs: [r.randn(5, 4), r.randn(6, 4)], attrs: { columnOffset: 3 }, outputs: [r.randn(5, 11)] },
    { inputs: [r.randn(2, 3, 8), r.randn(7, 8)], attrs: { columnOffset: 0 }, outputs: [r.randn(2, 3, 7)] },
    { inputs: [r.randn(65, 16), r.randn(130, 16)], attrs: { columnOffset: 70 }, outputs: [r.randn(65, 200)] },
  ],
});

/** What goes on from du, the gradient of scale^-1 u: that of A and that of x. */
function gradientsBelow({ attrs, input, wants, into }: VjpContext<LoraAttrs>, du: Tensor): void {
  if (wants(2)) {
    const { tensor, accumulate } = into(2);
    const dropped = masked(input(1), attrs);
    launch(linearDw, [du, dropped], [tensor], { n: 1, columnOffset: 0, layout: 0, accumulate });
    if (dropped !== input(1)) dropped.dispose();
  }
  if (!wants(1)) return;
  const dx = into(1).tensor;
  launch(linearDx, [du, input(2)], [dx], { n: 1, layout: 0, columnOffset: 0 });
  if (attrs.p > 0) launch(dropoutOp, [dx], [dx], attrs);
}

function masked(x: Tensor, attrs: LoraAttrs): Tensor {
  if (attrs.p === 0) return x;
  const dropped = empty(x.device, x.shape, x.dtype);
  launch(dropoutOp, [x], [dropped], attrs);
  return dropped;
}

export interface LoraOptions {
  readonly a: Argument;
  readonly b: Argument;
  readonly scale: number;
  /** Probability with which elements of x are dropped, in training. */
  readonly dropout: number;
  /** Where the layer's columns begin in y. */
  readonly columnOffset: number;
}

/** y with a layer's low-rank update of x; see {@link loraOp}. Takes y over: the caller has no use for it afterwards. */
export function lora(y: Tensor, x: Tensor, { a, b, scale, dropout, columnOffset }: LoraOptions): Tensor {
  const [sum, u] = apply(loraOp, [y, x, a, b], { scale, columnOffset, ...dropoutKey(dropout) });
  // The tape holds it where there is a backward pass to come.
  u!.dispose();
  return sum!;
}
