import type { HostTensor } from '../tensor/host.js';
import type { TensorSpec } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import type { Random } from './random-samples.js';
import { routedSample } from './route.js';

/**
 * Products of rows by the weights of their experts. Rows lie by sorted place (see `Routing`): expert e has those from offsets[e] up to
 * offsets[e + 1]. An operand that lies by token instead is read through `order`: where its attribute `gather` is k and not 0, the row at
 * place r is that of token order[r] / k, and nothing is copied. The weights [O, I] of E experts come n times: all first ones, all second.
 */
interface GroupedAttrs extends Record<string, number> {
  n: number;
  gather: number;
}

/** y [R, n O] = [x W_e0' | x W_e1' | ..]: inputs x, order [R], offsets [E + 1], then n E weights. */
export const expertLinear = defineOp<GroupedAttrs>({
  name: 'expert_linear',
  attrs: ['n', 'gather'],
  infer([x, order, offsets, ...weights], { n, gather }) {
    checkGrouped('expert_linear', 'x', x!, order!, offsets!, gather);
    checkWeights('expert_linear', weights, n * (columns(offsets!) - 1), columns(x!), 1);
    return [{ shape: [columns(order!), n * weights[0]!.shape[0]!], dtype: x!.dtype }];
  },
  reference([x, order, offsets, ...weights], { n, gather }, [y]) {
    const [size, total, experts] = [columns(x!), columns(y!), columns(offsets!) - 1];
    const out = total / n;
    eachRow(offsets!, (expert, r) => {
      const from = rowOf(order!, r, gather) * size;
      for (let o = 0; o < total; o++) {
        const w = weights[Math.floor(o / out) * experts + expert]!.data;
        let sum = 0;
        for (let i = 0; i < size; i++) sum += x!.data[from + i]! * w[(o % out) * size + i]!;
        y!.data[r * total + o] = sum;
      }
    });
  },
  samples: (r) =>
    cases(r, ({ tokens, experts, k, size, out, n, gather, rows, order, offsets }) => ({
      inputs: [r.randn(gather ? tokens : rows, size), order, offsets, ...matrices(r, n * experts, out, size)],
      attrs: { n, gather: gather ? k : 0 },
    })),
});

/** dx [R, I] = sum_j dy_j W_ej, one accumulation in f32: inputs dy [.., n O], order, offsets, then n E weights. */
export const expertLinearDx = defineOp<GroupedAttrs>({
  name: 'expert_linear_dx',
  attrs: ['n', 'gather'],
  infer([dy, order, offsets, ...weights], { n, gather }) {
    checkGrouped('expert_linear_dx', 'dy', dy!, order!, offsets!, gather);
    checkWeights('expert_linear_dx', weights, n * (columns(offsets!) - 1), columns(dy!) / n, 0);
    return [{ shape: [columns(order!), columns(weights[0]!)], dtype: dy!.dtype }];
  },
  reference([dy, order, offsets, ...weights], { n, gather }, [dx]) {
    const [size, total, experts] = [columns(dx!), columns(dy!), columns(offsets!) - 1];
    const out = total / n;
    eachRow(offsets!, (expert, r) => {
      const from = rowOf(order!, r, gather) * total;
      for (let i = 0; i < size; i++) {
        let sum = 0;
        for (let o = 0; o < total; o++)
          sum += dy!.data[from + o]! * weights[Math.floor(o / out) * experts + expert]!.data[(o % out) * size + i]!;
        dx!.data[r * size + i] = sum;
      }
    });
  },
  samples: (r) =>
    cases(r, ({ tokens, experts, k, size, out, n, gather, rows, order, offsets }) => ({
      inputs: [r.randn(gather ? tokens : rows, n * out), order, offsets, ...matrices(r, n * experts, out, size)],
      attrs: { n, gather: gather ? k : 0 },
    })),
});

/**
 * dW_e [O, I] = dy_e' x_e for the experts from `first` on, as many as there are outputs, or added to them when accumulate; an expert without
 * rows gets zeros. Inputs dy and x, either by place or, by its `gather`, by token; order, offsets. Of dy the columns from columnOffset on.
 */
export const expertLinearDw = defineOp<{ first: number; columnOffset: number; gatherDy: number; gatherX: number; accumulate: number }>({
  name: 'expert_linear_dw',
  attrs: ['first', 'columnOffset', 'gatherDy', 'gatherX', 'accumulate'],
  // The outputs say how many columns of dy they take; without any, all that follow.
  infer([dy, x, order, offsets], { first, columnOffset, gatherDy, gatherX }) {
    checkGrouped('expert_linear_dw', 'dy', dy!, order!, offsets!, gatherDy);
    checkGrouped('expert_linear_dw', 'x', x!, order!, offsets!, gatherX);
    const shape = [columns(dy!) - columnOffset, columns(x!)];
    return Array.from({ length: columns(offsets!) - 1 - first }, () => ({ shape, dtype: dy!.dtype }));
  },
  reference([dy, x, order, offsets], { first, columnOffset, gatherDy, gatherX, accumulate }, gradients) {
    const [size, total] = [columns(x!), columns(dy!)];
    if (!accumulate) for (const dw of gradients) dw.data.fill(0);
    eachRow(offsets!, (expert, r) => {
      const dw = gradients[expert - first];
      if (!dw) return;
      const left = rowOf(order!, r, gatherDy) * total + columnOffset;
      const right = rowOf(order!, r, gatherX) * size;
      for (let o = 0; o < dw.shape[0]!; o++) {
        for (let i = 0; i < size; i++) dw.data[o * size + i]! += dy!.data[left + o]! * x!.data[right + i]!;
      }
    });
  },
  samples: (r) =>
    [0, 1].flatMap((accumulate) =>
      cases(r, ({ tokens, experts, k, size, out, n, gather, rows, order, offsets }) => {
        const first = accumulate;
        const [gatherDy, gatherX] = n > 1 ? [0, gather ? k : 0] : [gather ? k : 0, 0];
        return {
          inputs: [r.randn(gatherDy ? tokens : rows, n * out), r.randn(gatherX ? tokens : rows, size), order, offsets],
          attrs: { first, columnOffset: (n - 1) * out, gatherDy, gatherX, accumulate },
          outputs: matrices(r, experts - first - accumulate, out, size),
        };
      }),
    ),
});

function checkGrouped(op: string, what: string, x: TensorSpec, order: TensorSpec, offsets: TensorSpec, gather: number): void {
  expectFloat(op, what, x);
  for (const [name, ids] of Object.entries({ order, offsets })) expect(ids.dtype === 'i32', op, `${name} of dtype i32`, ids);
  const rows = gather ? columns(order) / gather : columns(order);
  expect(rowsOf(x) === rows, op, `${what} with ${rows} rows`, x);
}

/** Weights of one shape whose axis has `size` elements. */
function checkWeights(op: string, weights: readonly TensorSpec[], count: number, size: number, axis: 0 | 1): void {
  expect(weights.length === count, op, `${count} weights, one or several for each expert`, `${weights.length}`);
  const [first] = weights;
  for (const [i, w] of weights.entries()) {
    const alike = w.dtype === first!.dtype && w.shape.length === 2 && w.shape[0] === first!.shape[0] && w.shape[1] === first!.shape[1];
    expect(alike, op, `weight ${i} like weight 0`, w);
  }
  expect(first!.shape[axis] === size, op, `weights with ${size} ${axis ? 'inputs' : 'outputs'}`, first!);
}

function eachRow({ data }: HostTensor, body: (expert: number, row: number) => void): void {
  for (let expert = 0; expert + 1 < data.length; expert++) for (let r = data[expert]!; r < data[expert + 1]!; r++) body(expert, r);
}

/** Where the row at a sorted place lies. */
function rowOf(order: HostTensor, place: number, gather: number): number {
  return gather ? Math.floor(order.data[place]! / gather) : place;
}

interface Case {
  readonly tokens: number;
  readonly experts: number;
  readonly k: number;
  readonly size: number;
  readonly out: number;
  readonly n: number;
  readonly gather: boolean;
  readonly rows: number;
  readonly order: HostTensor;
  readonly offsets: HostTensor;
}

/** Few rows and many, sizes that are multiples of a vector and not, several tiles of a kernel, one and two weights, by place and by token. */
function cases<T>(r: Random, sample: (c: Case) => T): T[] {
  const sizes = [
    { tokens: 5, experts: 4, k: 2, size: 7, out: 3, n: 2, gather: true },
    { tokens: 9, experts: 3, k: 1, size: 8, out: 16, n: 1, gather: false },
    { tokens: 1, experts: 4, k: 2, size: 40, out: 24, n: 2, gather: true },
    { tokens: 75, experts: 4, k: 2, size: 72, out: 40, n: 2, gather: true },
    { tokens: 150, experts: 3, k: 2, size: 264, out: 48, n: 1, gather: true },
    { tokens: 90, experts: 3, k: 2, size: 32, out: 272, n: 1, gather: false },
  ];
  return sizes.map((size) => {
    const { order, offsets } = routedSample(r, size.tokens, size.experts, size.k);
    return sample({ ...size, rows: size.tokens * size.k, order, offsets });
  });
}

function matrices(r: Random, count: number, rows: number, size: number): HostTensor[] {
  return Array.from({ length: count }, () => r.randn(rows, size));
}
