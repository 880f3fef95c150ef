import { type Argument, apply } from '../autograd/apply.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf, withColumns } from './check.js';
import { defineOp, type GradientTarget } from './define-op.js';
import { launch } from './launch.js';

/** How a weight is stored: 'out_in' as torch.nn.Linear does ([O, I]), 'in_out' as GPT-2's Conv1D ([I, O]). */
export type LinearLayout = 'out_in' | 'in_out';

interface LinearAttrs extends Record<string, number> {
  n: number;
  hasBias: number;
  layout: number;
}

function outSize(w: TensorSpec, layout: number): number {
  return w.shape[layout ? 1 : 0]!;
}

function inSize(w: TensorSpec, layout: number): number {
  return w.shape[layout ? 0 : 1]!;
}

/**
 * y = [x W_0' + b_0 | x W_1' + b_1 | ...]: n weights over one input, their columns side by side, so that q, k and v (or gate
 * and up) come out packed without a copy. Inputs x [..., I], n weights, then n biases when hasBias.
 */
export const linearOp = defineOp<LinearAttrs>({
  name: 'linear',
  attrs: ['n', 'hasBias', 'layout'],
  infer([x, ...rest], { n, hasBias, layout }) {
    expectFloat('linear', 'x', x!);
    expect(
      rest.length === n * (1 + hasBias),
      'linear',
      `${n} weights${hasBias ? ` and ${n} biases` : ''}`,
      `${rest.length} inputs after x`,
    );
    let total = 0;
    for (let i = 0; i < n; i++) {
      const w = rest[i]!;
      expect(
        w.shape.length === 2 && inSize(w, layout) === columns(x!),
        'linear',
        `weight ${i} with ${columns(x!)} inputs for x [${x!.shape.join(', ')}]`,
        w,
      );
      expect(w.dtype === x!.dtype, 'linear', `weight ${i} of dtype ${x!.dtype}`, w);
      expect(outSize(w, layout) > 0 && inSize(w, layout) > 0, 'linear', `weight ${i} with at least one input and one output`, w);
      if (hasBias)
        expect(columns(rest[n + i]!) === outSize(w, layout), 'linear', `bias ${i} of ${outSize(w, layout)} elements`, rest[n + i]!);
      total += outSize(w, layout);
    }
    return [{ shape: withColumns(x!.shape, total), dtype: x!.dtype }];
  },
  reference([x, ...rest], { n, hasBias, layout }, [y]) {
    const size = columns(x!);
    const total = columns(y!);
    let offset = 0;
    for (let s = 0; s < n; s++) {
      const w = rest[s]!;
      const out = outSize(w, layout);
      for (let row = 0; row < rowsOf(x!); row++) {
        for (let o = 0; o < out; o++) {
          let sum = hasBias ? rest[n + s]!.data[o]! : 0;
          for (let i = 0; i < size; i++) sum += x!.data[row * size + i]! * w.data[layout ? i * out + o : o * size + i]!;
          y!.data[row * total + offset + o] = sum;
        }
      }
      offset += out;
    }
  },
  // x and the weights; biases are listed for want of n here, and cost nothing: parameters are saved as handles.
  saves: { inputs: [0, 1, 2, 3, 4, 5, 6, 7, 8] },
  vjp({ attrs: { n, hasBias, layout }, input, grad, wants, into, inputSpecs }) {
    const dy = grad(0)!;
    if (wants(0)) {
      const weights = Array.from({ length: n }, (_, i) => input(1 + i));
      launch(linearDx, [dy, ...weights], [into(0).tensor], { n, layout, columnOffset: 0 });
    }
    const sizes = Array.from({ length: n }, (_, i) => outSize(inputSpecs[1 + i]!, layout));
    for (const { columnOffset, accumulate, tensors } of gradientRuns(sizes, (i) => (wants(1 + i) ? into(1 + i) : undefined)))
      launch(linearDw, [dy, input(0)], tensors, { n: tensors.length, columnOffset, layout, accumulate });
    if (!hasBias) return;
    for (const { columnOffset, accumulate, tensors } of gradientRuns(sizes, (i) => (wants(1 + n + i) ? into(1 + n + i) : undefined)))
      launch(columnSum, [dy], tensors, { n: tensors.length, columnOffset, accumulate });
  },
  samples: (r) => [
    { inputs: [r.randn(2, 5, 7), r.randn(3, 7)], attrs: { n: 1, hasBias: 0, layout: 0 } },
    { inputs: [r.randn(5, 7), r.randn(7, 3), r.randn(3)], attrs: { n: 1, hasBias: 1, layout: 1 } },
    {
      inputs: [r.randn(5, 8), r.randn(6, 8), r.randn(2, 8), r.randn(2, 8)],
      attrs: { n: 3, hasBias: 0, layout: 0 },
      note: 'q, k and v side by side',
    },
    { inputs: [r.randn(5, 8), r.randn(6, 8), r.randn(3, 8), r.randn(6), r.randn(3)], attrs: { n: 2, hasBias: 1, layout: 0 } },
    { inputs: [r.randn(2, 1, 16), r.randn(5, 16), r.randn(5)], attrs: { n: 1, hasBias: 1, layout: 0 }, note: 'few rows' },
    { inputs: [r.randn(70, 96), r.randn(200, 96), r.randn(200)], attrs: { n: 1, hasBias: 1, layout: 0 }, differentiable: [] },
  ],
});

/** dx = sum_i dy_i W_i, one accumulation in f32. The dy_i are dy's columns one after another from columnOffset on. */
export const linearDx = defineOp<{ n: number; layout: number; columnOffset: number }>({
  name: 'linear_dx',
  attrs: ['n', 'layout', 'columnOffset'],
  infer: ([dy, w], { layout }) => [{ shape: withColumns(dy!.shape, inSize(w!, layout)), dtype: dy!.dtype }],
  reference([dy, ...weights], { layout, columnOffset }, [dx]) {
    const size = columns(dx!);
    const total = columns(dy!);
    dx!.data.fill(0);
    for (let row = 0; row < rowsOf(dy!); row++) {
      let offset = columnOffset;
      for (const w of weights) {
        const out = outSize(w, layout);
        for (let o = 0; o < out; o++) {
          const g = dy!.data[row * total + offset + o]!;
          for (let i = 0; i < size; i++) dx!.data[row * size + i]! += g * w.data[layout ? i * out + o : o * size + i]!;
        }
        offset += out;
      }
    }
  },
  samples: (r) => [
    { inputs: [r.randn(5, 11), r.randn(6, 8), r.randn(5, 8)], attrs: { n: 2, layout: 0, columnOffset: 0 } },
    { inputs: [r.randn(64, 130), r.randn(96, 130)], attrs: { n: 1, layout: 1, columnOffset: 0 } },
    { inputs: [r.randn(64, 130), r.randn(40, 8)], attrs: { n: 1, layout: 0, columnOffset: 90 }, note: 'some columns' },
  ],
});

/**
 * dw_i = dy_i' x in the layout of the weights, or added to dw_i when accumulate. The dy_i are dy's columns one after another from
 * columnOffset on, as many as dw_i has: gradients that lie together in memory are one product.
 */
export const linearDw = defineOp<{ n: number; columnOffset: number; layout: number; accumulate: number }>({
  name: 'linear_dw',
  attrs: ['n', 'columnOffset', 'layout', 'accumulate'],
  // The outputs say how the columns are divided; without any, evenly.
  infer: ([dy, x], { n, columnOffset, layout }) => {
    const out = (columns(dy!) - columnOffset) / n;
    return Array.from({ length: n }, () => ({ shape: layout ? [columns(x!), out] : [out, columns(x!)], dtype: dy!.dtype }));
  },
  reference([dy, x], { columnOffset, layout, accumulate }, gradients) {
    const size = columns(x!);
    const total = columns(dy!);
    let offset = columnOffset;
    for (const dw of gradients) {
      const out = outSize(dw, layout);
      if (!accumulate) dw.data.fill(0);
      for (let row = 0; row < rowsOf(x!); row++) {
        for (let o = 0; o < out; o++) {
          const g = dy!.data[row * total + offset + o]!;
          for (let i = 0; i < size; i++) dw.data[layout ? i * out + o : o * size + i]! += g * x!.data[row * size + i]!;
        }
      }
      offset += out;
    }
  },
  samples: (r) => [
    { inputs: [r.randn(5, 11), r.randn(5, 8)], attrs: { n: 1, columnOffset: 6, layout: 0, accumulate: 0 } },
    { inputs: [r.randn(5, 11), r.randn(5, 8)], attrs: { n: 1, columnOffset: 0, layout: 1, accumulate: 1 }, outputs: [r.randn(8, 6)] },
    {
      inputs: [r.randn(64, 130), r.randn(64, 96)],
      attrs: { n: 1, columnOffset: 0, layout: 0, accumulate: 1 },
      outputs: [r.randn(130, 96)],
    },
    {
      inputs: [r.randn(37, 19), r.randn(37, 24)],
      attrs: { n: 3, columnOffset: 2, layout: 0, accumulate: 1 },
      outputs: [r.randn(8, 24), r.randn(3, 24), r.randn(3, 24)],
      note: 'several weights',
    },
    {
      inputs: [r.randn(9, 12), r.randn(9, 10)],
      attrs: { n: 2, columnOffset: 0, layout: 1, accumulate: 0 },
      outputs: [r.randn(10, 7), r.randn(10, 5)],
      note: 'several weights, in_out',
    },
  ],
});

/** out_i = sum over rows of dy's columns, from columnOffset on as many for each output as it has: the gradients of biases. */
export const columnSum = defineOp<{ n: number; columnOffset: number; accumulate: number }>({
  name: 'column_sum',
  attrs: ['n', 'columnOffset', 'accumulate'],
  infer: ([dy], { n, columnOffset }) => Array.from({ length: n }, () => ({ shape: [(columns(dy!) - columnOffset) / n], dtype: dy!.dtype })),
  reference([dy], { columnOffset, accumulate }, sums) {
    const total = columns(dy!);
    let offset = columnOffset;
    for (const sum of sums) {
      const out = columns(sum);
      if (!accumulate) sum.data.fill(0);
      for (let row = 0; row < rowsOf(dy!); row++) {
        for (let o = 0; o < out; o++) sum.data[o]! += dy!.data[row * total + offset + o]!;
      }
      offset += out;
    }
  },
  samples: (r) => [
    { inputs: [r.randn(5, 11)], attrs: { n: 1, columnOffset: 6, accumulate: 0 } },
    { inputs: [r.randn(300, 70)], attrs: { n: 1, columnOffset: 0, accumulate: 1 }, outputs: [r.randn(70)] },
    {
      inputs: [r.randn(41, 30)],
      attrs: { n: 2, columnOffset: 3, accumulate: 1 },
      outputs: [r.randn(16), r.randn(11)],
      note: 'several biases',
    },
  ],
});

interface GradientRun {
  readonly columnOffset: number;
  readonly accumulate: 0 | 1;
  readonly tensors: Tensor[];
}

/**
 * Gradients of weights side by side, as launches: neighbours go together as long as each is wanted and all are written or all
 * added to. A tensor that comes a second time (one weight used twice) must wait for its first sum, so it begins a new run.
 */
export function gradientRuns(sizes: readonly number[], target: (index: number) => GradientTarget | undefined): GradientRun[] {
  const runs: GradientRun[] = [];
  let open: GradientRun | undefined;
  let columnOffset = 0;
  for (const [i, size] of sizes.entries()) {
    const wanted = target(i);
    if (!wanted) open = undefined;
    else if (open && open.accumulate === wanted.accumulate && !open.tensors.some((tensor) => sameMemory(tensor, wanted.tensor)))
      open.tensors.push(wanted.tensor);
    else {
      open = { columnOffset, accumulate: wanted.accumulate, tensors: [wanted.tensor] };
      runs.push(open);
    }
    columnOffset += size;
  }
  return runs;
}

function sameMemory(a: Tensor, b: Tensor): boolean {
  return a.handle === b.handle && a.byteOffset === b.byteOffset;
}

/** Applies one or several weights to x [..., I]; several give their columns side by side. Biases: as many as weights, or none. */
export function linear(
  x: Argument,
  weights: readonly Argument[],
  biases: readonly Argument[] = [],
  layout: LinearLayout = 'out_in',
): Tensor {
  const attrs = { n: weights.length, hasBias: Number(biases.length > 0), layout: Number(layout === 'in_out') };
  return apply(linearOp, [x, ...weights, ...biases], attrs)[0]!;
}
