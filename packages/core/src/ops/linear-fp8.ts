import { type Argument, apply } from '../autograd/apply.js';
import { isRecording } from '../autograd/mode.js';
import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { cast } from './cast.js';
import { columns, expect, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { fp8Cast, padded } from './fp8-cast.js';
import { fp8Matmul } from './fp8-matmul.js';
import {
  castToFp8,
  expectBf16,
  expectSixteens,
  type Fp8Matrix,
  type Fp8Recipe,
  multiplyFp8,
  OF_DY,
  OF_W,
  OF_X,
  weightGradientsFp8,
} from './fp8-pieces.js';
import { launch } from './launch.js';
import { columnSum, type LinearLayout, linearOp } from './linear.js';

interface LinearFp8Attrs extends Fp8Recipe {
  n: number;
  hasBias: number;
  layout: number;
  /** Whether backward will want x; then its codes are kept instead of x itself, half the bytes. */
  keep: number;
}

/** How a layer multiplies in 8 bits. */
export interface Fp8Layer {
  /** f32 [3, 2 + history]: scales and magnitudes of input, weight and gradient; see `fp8Advance`. Launches raise the magnitudes. */
  readonly state: Tensor;
  readonly recipe: Fp8Recipe;
}

/**
 * `linear` in 8 bits: x and the weights in e4m3, the gradient of y in e5m2, each with a scale of its own (arXiv:2209.05433). Inputs x
 * [..., I], the layer's state, n weights, their n biases when hasBias; outputs y and, when `keep`, the codes of x' [I, T padded] and
 * their 1 / scale. Everything else is bf16. I and the sum of outputs are multiples of 16.
 */
export const linearFp8Op = defineOp<LinearFp8Attrs>({
  name: 'linear_fp8',
  attrs: ['n', 'hasBias', 'layout', 'keep', 'calibrate', 'margin', 'fastBackward'],
  dtypes: ['bf16'],
  infer([x, _state, ...rest], attrs) {
    expectBf16('linear_fp8', 'x', x!);
    expect(attrs.layout === 0 || attrs.n === 1, 'linear_fp8', "one weight, or weights stored 'out_in'", `${attrs.n} weights`);
    const [y] = linearOp.infer([x!, ...rest], attrs);
    expectSixteens('linear_fp8', 'inputs', columns(x!));
    expectSixteens('linear_fp8', 'outputs', columns(y!));
    if (!attrs.keep) return [y!];
    return [y!, { shape: [columns(x!), padded(rowsOf(x!))], dtype: 'u8' }, { shape: [1], dtype: 'f32' }];
  },
  reference([x, state, ...rest], { n, hasBias, layout, keep, calibrate, margin }, [y, xT, xInverse]) {
    const length = columns(state!);
    const row = (i: number) => hostTensor([length], 'f32', state!.data.subarray(i * length, (i + 1) * length));
    const [inverseX, inverseW] = [xInverse ?? hostTensor([1], 'f32'), hostTensor([1], 'f32')];
    const xCodes = hostTensor([rowsOf(x!), columns(x!)], 'u8');
    fp8Cast.reference([x!], { e5m2: 0, rows: 1, columns: keep, calibrate, margin }, [xCodes, ...(xT ? [xT] : []), inverseX, row(OF_X)]);
    const wCodes = hostTensor([columns(y!), columns(x!)], 'u8');
    const sides = { rows: 1 - layout, columns: layout };
    fp8Cast.reference(rest.slice(0, n), { e5m2: 0, ...sides, calibrate, margin }, [wCodes, inverseW, row(OF_W)]);
    const bias = hasBias ? [hostTensor([columns(y!)], 'f32', Float64Array.from(rest.slice(n).flatMap(({ data }) => [...data])))] : [];
    const products = { aE5m2: 0, bE5m2: 0, fast: 1, accumulate: 0 };
    fp8Matmul.reference([xCodes, wCodes, inverseX, inverseW, ...bias], products, [y!]);
  },
  compose([x, state, ...rest], attrs, [y, xT, xInverse]) {
    const { n, hasBias } = attrs;
    scope(() => {
      const into = xT && xInverse ? { columns: xT, inverse: xInverse } : {};
      const input = castToFp8([x!], state!.narrow(OF_X, 1), { rows: true, ...into }, attrs);
      const bias = hasBias ? joined(rest.slice(n)) : undefined;
      multiplyFp8(rowsOfFp8(input), forwardWeight(rest.slice(0, n), state!, attrs), [y!], { fast: 1, bias });
    });
  },
  saves: { inputs: [1, 2, 3, 4, 5, 6, 7, 8, 9], outputs: [1, 2] },
  vjp({ attrs, inputSpecs, input, output, grad, wants, into }) {
    const { n, hasBias, layout, fastBackward: fast } = attrs;
    const dy = grad(0)!;
    const state = input(1);
    const target = (i: number) => (wants(i) ? into(i) : undefined);
    // Outside of the scope below, which frees what is made in it.
    const dx = target(0);
    const weights = Array.from({ length: n }, (_, i) => target(2 + i));
    const biases = Array.from({ length: hasBias * n }, (_, i) => target(2 + n + i));
    const sizes = inputSpecs.slice(2, 2 + n).map(({ shape }) => shape[layout ? 1 : 0]!);
    const values = dx ? Array.from({ length: n }, (_, i) => input(2 + i)) : [];
    scope(() => {
      const wanted = { e5m2: 1, rows: dx !== undefined, columns: weights.some(Boolean) } as const;
      const d = dx || wanted.columns ? castToFp8([dy], state.narrow(OF_DY, 1), wanted, attrs) : undefined;
      if (dx) scope(() => multiplyFp8(rowsOfFp8(d!), backwardWeight(values, state, attrs), [dx.tensor], { fast }));
      if (wanted.columns) {
        const x = { codes: output(1), of: { inverse: output(2), e5m2: 0 as const } };
        const [only] = weights;
        if (layout) multiplyFp8(x, { codes: d!.columns!, of: d! }, [only!.tensor], { fast, accumulate: only!.accumulate });
        else weightGradientsFp8(d!, x, sizes, weights, fast);
      }
      let columnOffset = 0;
      for (const [i, bias] of biases.entries()) {
        if (bias) launch(columnSum, [dy], [bias.tensor], { n: 1, columnOffset, accumulate: bias.accumulate });
        columnOffset += sizes[i]!;
      }
    });
  },
  samples: (r) => {
    const attrs = { n: 1, hasBias: 0, layout: 0, keep: 1, calibrate: 0, margin: 0, fastBackward: 0 };
    const state = () => hostTensor([3, 5], 'f32', [64, 0, 0, 0, 0, 128, 0, 0, 0, 0, 4096, 0, 0, 0, 0]);
    const differentiable: number[] = [];
    return [
      { inputs: [r.randn(2, 5, 32), state(), r.randn(48, 32)], attrs, differentiable },
      { inputs: [r.randn(33, 48), state(), r.randn(48, 64), r.randn(64)], attrs: { ...attrs, layout: 1, hasBias: 1 }, differentiable },
      {
        inputs: [r.randn(40, 64), state(), r.randn(64, 64), r.randn(16, 64), r.randn(16, 64)],
        attrs: { ...attrs, n: 3, calibrate: 1, keep: 0 },
        differentiable,
        note: 'q, k and v',
      },
    ];
  },
});

/** Codes as values lie, for one side of a product. */
export function rowsOfFp8(of: Fp8Matrix): { codes: Tensor; of: Fp8Matrix } {
  return { codes: of.rows!, of };
}

/** Weights as codes [O, I], for y = x W'. */
export function forwardWeight(weights: readonly Tensor[], state: Tensor, attrs: Fp8Recipe & { layout: number }) {
  const of = castToFp8(weights, state.narrow(OF_W, 1), attrs.layout ? { columns: true } : { rows: true }, attrs);
  return { codes: (of.rows ?? of.columns)!, of };
}

/** Weights as codes [I, O], for dx = dy W, by the scale of the forward pass. */
export function backwardWeight(weights: readonly Tensor[], state: Tensor, attrs: Fp8Recipe & { layout: number }) {
  const side = attrs.layout ? { rows: true } : { columns: true };
  const of = castToFp8(weights, state.narrow(OF_W, 1), side, { ...attrs, calibrate: 0 });
  return { codes: (of.rows ?? of.columns)!, of };
}

/** Biases one after another. */
function joined(biases: readonly Tensor[]): Tensor {
  if (biases.length === 1) return biases[0]!;
  const [{ device, dtype }] = biases as [Tensor];
  const all = empty(device, [biases.reduce((sum, { numel }) => sum + numel, 0)], dtype);
  let at = 0;
  for (const bias of biases) {
    launch(cast, [bias], [all.narrow(at, bias.numel)], {});
    at += bias.numel;
  }
  return all;
}

/** {@link linear} in 8 bits. Launches raise the magnitudes in the layer's state. */
export function linearFp8(
  x: Argument,
  weights: readonly Argument[],
  biases: readonly Argument[],
  layout: LinearLayout,
  { state, recipe }: Fp8Layer,
): Tensor {
  const attrs = {
    ...recipe,
    n: weights.length,
    hasBias: Number(biases.length > 0),
    layout: Number(layout === 'in_out'),
    keep: Number(isRecording()),
  };
  const [y, ...kept] = apply(linearFp8Op, [x, state, ...weights, ...biases], attrs);
  // The tape holds them where there is a backward pass to come.
  for (const tensor of kept) tensor.dispose();
  return y!;
}
