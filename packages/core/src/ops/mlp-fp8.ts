import { type Argument, apply } from '../autograd/apply.js';
import { isRecording } from '../autograd/mode.js';
import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { padded } from './fp8-cast.js';
import { castToFp8, expectBf16, expectSixteens, type Fp8Recipe, multiplyFp8, OF_DY, OF_X, weightGradientsFp8 } from './fp8-pieces.js';
import { fp8Swiglu, fp8SwigluBackward } from './fp8-swiglu.js';
import { launch } from './launch.js';
import { linearOp } from './linear.js';
import { backwardWeight, type Fp8Layer, forwardWeight, linearFp8Op, rowsOfFp8 } from './linear-fp8.js';
import { stored } from './stored.js';
import { swigluOp } from './swiglu.js';

interface MlpFp8Attrs extends Fp8Recipe {
  /** Weights of the first map: gate and up, or both in one. */
  n: number;
  keep: number;
}

/** Weights are stored [O, I]. */
const layout = 0;

/**
 * y = swiglu(x [W_0 | ...]') W' in 8 bits: the feed-forward part of most large models. Inputs x [..., I], the states of the two maps, n
 * weights, the last weight; outputs y, h = [gate | up] in bf16 and, when `keep`, codes of x' with their 1 / scale. SwiGLU's result and
 * the gradient of h exist as codes alone.
 */
export const mlpFp8Op = defineOp<MlpFp8Attrs>({
  name: 'mlp_fp8',
  attrs: ['n', 'keep', 'calibrate', 'margin', 'fastBackward'],
  dtypes: ['bf16'],
  // A value at the border of two codes may fall to either.
  tolerance: 0.06,
  infer([x, _first, _last, ...weights], { n, keep }) {
    expectBf16('mlp_fp8', 'x', x!);
    const [h] = linearOp.infer([x!, ...weights.slice(0, n)], { n, hasBias: 0, layout });
    const [a] = swigluOp.infer([h!], {});
    const [y] = linearOp.infer([a!, weights[n]!], { n: 1, hasBias: 0, layout });
    for (const [what, spec] of [
      ['inputs', x],
      ['hidden values', a],
      ['outputs', y],
    ] as const)
      expectSixteens('mlp_fp8', what, columns(spec!));
    const kept = [
      { shape: [columns(x!), padded(rowsOf(x!))], dtype: 'u8' as const },
      { shape: [1], dtype: 'f32' as const },
    ];
    return [y!, h!, ...(keep ? kept : [])];
  },
  reference([x, first, last, ...weights], { n, keep, ...recipe }, [y, h, ...kept]) {
    const map = { ...recipe, hasBias: 0, layout } as const;
    linearFp8Op.reference([x!, first!, ...weights.slice(0, n)], { ...map, n, keep } as never, [h!, ...kept]);
    const kept16 = { ...h!, data: h!.data.map((value) => stored(value, h!.dtype)) };
    const a = hostTensor([rowsOf(h!), columns(h!) / 2], 'f32');
    swigluOp.reference([kept16], {}, [a]);
    linearFp8Op.reference([a, last!, weights[n]!], { ...map, n: 1, keep: 0 } as never, [y!]);
  },
  compose([x, first, last, ...weights], attrs, [y, h, xT, xInverse]) {
    const recipe = { ...attrs, layout };
    const { calibrate, margin } = attrs;
    scope(() => {
      const into = xT && xInverse ? { columns: xT, inverse: xInverse } : {};
      const input = castToFp8([x!], first!.narrow(OF_X, 1), { rows: true, ...into }, attrs);
      multiplyFp8(rowsOfFp8(input), forwardWeight(weights.slice(0, attrs.n), first!, recipe), [h!], { fast: 1 });
    });
    scope(() => {
      const codes = empty(h!.device, [rowsOf(h!), columns(h!) / 2], 'u8');
      const inverse = empty(h!.device, [1], 'f32');
      launch(fp8Swiglu, [h!], [codes, inverse, last!.narrow(OF_X, 1)], { calibrate, margin });
      const a = { codes, of: { inverse, e5m2: 0 as const } };
      multiplyFp8(a, forwardWeight(weights.slice(attrs.n), last!, recipe), [y!], { fast: 1 });
    });
  },
  saves: { inputs: [1, 2, 3, 4, 5, 6], outputs: [1, 2, 3] },
  vjp({ attrs, inputSpecs, input, output, grad, wants, into }) {
    const { n, fastBackward: fast, calibrate, margin } = attrs;
    const recipe = { ...attrs, layout };
    const dy = grad(0)!;
    const h = output(1);
    const { device } = h;
    const [first, last] = [input(1), input(2)];
    const target = (i: number) => (wants(i) ? into(i) : undefined);
    const dx = target(0);
    const gradients = Array.from({ length: n }, (_, i) => target(3 + i));
    const lastGradient = target(3 + n);
    const sizes = inputSpecs.slice(3, 3 + n).map(({ shape }) => shape[0]!);
    const [rows, size] = [rowsOf(h), columns(h) / 2];
    // Before the scope, which frees what is made in it: weights are handed back after it.
    const down = input(3 + n);
    const weights = dx ? Array.from({ length: n }, (_, i) => input(3 + i)) : [];
    const codesOf = (shape: number[]) => empty(device, shape, 'u8');
    scope(() => {
      const da = empty(device, [rows, size], 'bf16');
      const d = castToFp8([dy], last.narrow(OF_DY, 1), { e5m2: 1, rows: true, columns: true }, attrs);
      scope(() => multiplyFp8(rowsOfFp8(d), backwardWeight([down], last, recipe), [da], { fast }));
      const dh = {
        rows: codesOf([rows, 2 * size]),
        columns: codesOf([2 * size, padded(rows)]),
        inverse: empty(device, [1], 'f32'),
        e5m2: 1 as const,
      };
      const a = { codes: codesOf([size, padded(rows)]), of: { inverse: empty(device, [1], 'f32'), e5m2: 0 as const } };
      const states = [first.narrow(OF_DY, 1), last.narrow(OF_X, 1)] as const;
      const outputs = [dh.rows, dh.columns, dh.inverse, states[0], a.codes, a.of.inverse, states[1]];
      launch(fp8SwigluBackward, [da, h], outputs, { calibrate, margin });
      da.dispose();
      weightGradientsFp8(d, a, [columns(dy)], [lastGradient], fast);
      a.codes.dispose();
      const x = { codes: output(2), of: { inverse: output(3), e5m2: 0 as const } };
      weightGradientsFp8(dh, x, sizes, gradients, fast);
      dh.columns.dispose();
      if (!dx) return;
      multiplyFp8(rowsOfFp8(dh), backwardWeight(weights, first, recipe), [dx.tensor], { fast });
    });
  },
  samples: (r) => {
    const attrs = { n: 2, keep: 1, calibrate: 0, margin: 0, fastBackward: 0 };
    const state = () => hostTensor([3, 4], 'f32', [64, 0, 0, 0, 128, 0, 0, 0, 4096, 0, 0, 0]);
    return [
      {
        inputs: [r.randn(2, 9, 32), state(), state(), r.uniform(-0.5, 0.5, 96, 32), r.uniform(-0.5, 0.5, 96, 32), r.uniform(-1, 1, 32, 96)],
        attrs,
        differentiable: [],
      },
    ];
  },
});

/** SwiGLU's feed-forward part in 8 bits, all weights stored 'out_in', without biases; see {@link mlpFp8Op}. */
export function mlpFp8(x: Argument, first: readonly Argument[], last: Argument, layers: readonly [Fp8Layer, Fp8Layer]): Tensor {
  const attrs = { ...layers[0].recipe, n: first.length, keep: Number(isRecording()) };
  const [y, ...kept] = apply(mlpFp8Op, [x, layers[0].state, layers[1].state, ...first, last], attrs);
  for (const tensor of kept) tensor.dispose();
  return y!;
}
