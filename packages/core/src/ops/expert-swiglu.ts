import { columns, expect, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { routedSample } from './route.js';

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/**
 * a [R, F] = w silu(gate) up over h [R, 2F] = [gate | up] of rows by sorted place, w the share that the row's expert has of its token.
 * Inputs h, weights f32 [N, k], order [R]. Shares are multiplied in here, before the last product, because then backward needs no
 * result of that product: the gradient of a share is found beside that of h.
 */
export const expertSwiglu = defineOp<Record<never, number>>({
  name: 'expert_swiglu',
  attrs: [],
  infer([h, weights, order]) {
    expectFloat('expert_swiglu', 'h', h!);
    expect(columns(h!) % 2 === 0, 'expert_swiglu', 'an even last axis, gate then up', h!);
    expect(columns(order!) === rowsOf(h!), 'expert_swiglu', `the order of ${rowsOf(h!)} rows`, order!);
    expect(weights!.dtype === 'f32', 'expert_swiglu', 'weights of dtype f32', weights!);
    return [{ shape: [rowsOf(h!), columns(h!) / 2], dtype: h!.dtype }];
  },
  reference([h, weights, order], _, [a]) {
    const size = columns(a!);
    for (let r = 0; r < rowsOf(a!); r++) {
      const w = weights!.data[order!.data[r]!]!;
      for (let i = 0; i < size; i++) {
        const gate = h!.data[r * 2 * size + i]!;
        a!.data[r * size + i] = w * gate * sigmoid(gate) * h!.data[(r * 2 + 1) * size + i]!;
      }
    }
  },
  samples: (r) => samples(r).map(({ h, weights, order }) => ({ inputs: [h, weights, order], attrs: {} })),
});

/** From da [R, F], the gradient of a, and h, weights and order: dh [R, 2F], a itself again, and the gradients of the weights f32 [N, k]. */
export const expertSwigluBackward = defineOp<Record<never, number>>({
  name: 'expert_swiglu_backward',
  attrs: [],
  infer: ([da, h, weights]) => [h!, da!, weights!].map(({ shape, dtype }) => ({ shape, dtype })),
  reference([da, h, weights, order], _, [dh, a, dweights]) {
    const size = columns(a!);
    for (let r = 0; r < rowsOf(a!); r++) {
      const assignment = order!.data[r]!;
      const w = weights!.data[assignment]!;
      let dw = 0;
      for (let i = 0; i < size; i++) {
        const [gate, up, g] = [h!.data[r * 2 * size + i]!, h!.data[(r * 2 + 1) * size + i]!, da!.data[r * size + i]!];
        const s = sigmoid(gate);
        dw += g * gate * s * up;
        dh!.data[r * 2 * size + i] = w * g * up * s * (1 + gate * (1 - s));
        dh!.data[(r * 2 + 1) * size + i] = w * g * gate * s;
        a!.data[r * size + i] = w * gate * s * up;
      }
      dweights!.data[assignment] = dw;
    }
  },
  samples: (r) => samples(r).map(({ da, h, weights, order }) => ({ inputs: [da, h, weights, order], attrs: {} })),
});

function samples(r: Parameters<typeof routedSample>[0]) {
  return [
    [5, 7],
    [9, 101],
    [37, 64],
    [3, 1024],
  ].map(([tokens, size]) => {
    const { weights, order } = routedSample(r, tokens!, 4, 2);
    return { da: r.randn(2 * tokens!, size!), h: r.uniform(-9, 9, 2 * tokens!, 2 * size!), weights, order };
  });
}
