import { type Argument, apply } from '../autograd/apply.js';
import { empty } from '../tensor/create.js';
import { hostTensor } from '../tensor/host.js';
import { scope } from '../tensor/scope.js';
import type { Tensor, TensorSpec } from '../tensor/tensor.js';
import { columns, expect, rowsOf } from './check.js';
import { combine } from './combine.js';
import { defineOp, type VjpContext } from './define-op.js';
import { expertLinear, expertLinearDw, expertLinearDx } from './expert-linear.js';
import { expertSwiglu, expertSwigluBackward } from './expert-swiglu.js';
import { launch } from './launch.js';
import { gradientRuns } from './linear.js';
import { type Routing, routedSample } from './route.js';

/** Inputs before the weights: x, and weights, order, place and offsets of the routing. */
const WEIGHTS = 5;

/**
 * y = sum over each token's experts of w (silu(x G') * (x U')) D': the feed-forward part of a mixture of experts (Shazeer et al.,
 * arXiv:1701.06538). Inputs x [..., I], the routing's weights [N, k], order, place and offsets [E + 1], then of E experts the gates
 * [F, I], the ups [F, I] and the downs [I, F]; outputs y and h [N k, 2F], the gates' and ups' results by sorted place. Rows of x are read
 * where they lie, and backward keeps x and h alone: the large arrays are as many rows as experts are active, whatever their number.
 */
export const expertsOp = defineOp<{ k: number }>({
  name: 'experts',
  attrs: ['k'],
  infer([x, weights, order, place, offsets, ...rest], { k }) {
    const { first, last } = split(rest);
    expect(rest.length % 3 === 0 && columns(weights!) === k, 'experts', `three weights for each expert and ${k} shares`, `${rest.length}`);
    const [h] = expertLinear.infer([x!, order!, offsets!, ...first], { n: 2, gather: k });
    const [a] = expertSwiglu.infer([h!, weights!, order!], {});
    const [z] = expertLinear.infer([a!, order!, offsets!, ...last], { n: 1, gather: 0 });
    const [y] = combine.infer([z!, place!], { k });
    expect(columns(y!) === columns(x!), 'experts', `downs with ${columns(x!)} outputs`, last[0]!);
    return [{ shape: x!.shape, dtype: y!.dtype }, h!];
  },
  reference([x, weights, order, place, offsets, ...rest], { k }, [y, h]) {
    const { first, last } = split(rest);
    expertLinear.reference([x!, order!, offsets!, ...first], { n: 2, gather: k }, [h!]);
    const a = hostTensor([rowsOf(h!), columns(h!) / 2], h!.dtype);
    expertSwiglu.reference([h!, weights!, order!], {}, [a]);
    const z = hostTensor([rowsOf(h!), columns(y!)], y!.dtype);
    expertLinear.reference([a, order!, offsets!, ...last], { n: 1, gather: 0 }, [z]);
    combine.reference([z, place!], { k }, [y!]);
  },
  compose([x, weights, order, place, offsets, ...rest], { k }, [y, h]) {
    const { first, last } = split(rest);
    scope(() => {
      launch(expertLinear, [x!, order!, offsets!, ...first], [h!], { n: 2, gather: k });
      const a = empty(h!.device, [rowsOf(h!), columns(h!) / 2], h!.dtype);
      launch(expertSwiglu, [h!, weights!, order!], [a], {});
      const z = empty(h!.device, [rowsOf(h!), columns(y!)], h!.dtype);
      launch(expertLinear, [a, order!, offsets!, ...last], [z], { n: 1, gather: 0 });
      launch(combine, [z, place!], [y!], { k });
    });
  },
  // All inputs, of as many experts as there may be.
  saves: { inputs: Array.from({ length: WEIGHTS + 3 * 256 }, (_, i) => i), outputs: [1] },
  vjp(context) {
    const { attrs, inputSpecs, input, wants, into } = context;
    const { k } = attrs;
    const [order, place, offsets] = [input(2), input(3), input(4)];
    const experts = (inputSpecs.length - WEIGHTS) / 3;
    const weightsOf = (from: number, parts: number) =>
      Array.from({ length: parts * experts }, (_, i) => input(WEIGHTS + from * experts + i));
    const [dy, h] = [context.grad(0)!, context.output(1)];
    const [rows, size] = [rowsOf(h), columns(h) / 2];

    // da, and in its place a.
    const a = empty(h.device, [rows, size], h.dtype);
    launch(expertLinearDx, [dy, order, offsets, ...weightsOf(2, 1)], [a], { n: 1, gather: k });
    const dh = empty(h.device, h.shape, h.dtype);
    const dweights = wants(1) ? into(1).tensor : empty(h.device, inputSpecs[1]!.shape, 'f32');
    launch(expertSwigluBackward, [a, h, input(1), order], [dh, a, dweights], {});
    weightGradients(context, 2, { left: dy, right: a, columnOffset: 0, gatherDy: k, gatherX: 0 });
    a.dispose();

    if (wants(0)) {
      const dz = empty(h.device, [rows, columns(inputSpecs[0]!)], h.dtype);
      launch(expertLinearDx, [dh, order, offsets, ...weightsOf(0, 2)], [dz], { n: 2, gather: 0 });
      launch(combine, [dz, place], [into(0).tensor], { k });
      dz.dispose();
    }
    for (const part of [0, 1])
      weightGradients(context, part, { left: dh, right: input(0), columnOffset: part * size, gatherDy: 0, gatherX: k });
  },
  samples: (r) =>
    [
      { tokens: [2, 3], experts: 4, k: 2, size: 5, hidden: 4 },
      { tokens: [7], experts: 3, k: 1, size: 4, hidden: 6 },
    ].map(({ tokens, experts, k, size, hidden }) => {
      const { weights, order, place, offsets } = routedSample(
        r,
        tokens.reduce((a, b) => a * b, 1),
        experts,
        k,
      );
      const up = () => Array.from({ length: experts }, () => r.randn(hidden, size));
      const down = Array.from({ length: experts }, () => r.randn(size, hidden));
      return { inputs: [r.randn(...tokens, size), weights, order, place, offsets, ...up(), ...up(), ...down], attrs: { k } };
    }),
});

interface Sides {
  readonly left: Tensor;
  readonly right: Tensor;
  readonly columnOffset: number;
  readonly gatherDy: number;
  readonly gatherX: number;
}

/** Gradients of the gates (part 0), ups (1) or downs (2): one launch where all are wanted and alike in what becomes of them. */
function weightGradients(
  { inputSpecs, input, wants, into }: VjpContext<{ k: number }>,
  part: number,
  { left, right, ...attrs }: Sides,
): void {
  const experts = (inputSpecs.length - WEIGHTS) / 3;
  const index = (expert: number) => WEIGHTS + part * experts + expert;
  const targets = Array.from({ length: experts }, () => 1);
  // Experts are counted as if each were a column: a run begins at an expert.
  for (const { columnOffset: first, accumulate, tensors } of gradientRuns(targets, (e) => (wants(index(e)) ? into(index(e)) : undefined)))
    launch(expertLinearDw, [left, right, input(2), input(4)], tensors, { ...attrs, first, accumulate });
}

/** Gates and ups together, and downs. */
function split<T extends TensorSpec>(weights: readonly T[]): { first: T[]; last: T[] } {
  const end = (weights.length / 3) * 2;
  return { first: weights.slice(0, end), last: weights.slice(end) };
}

/** The maps of one expert: gate and up [F, I], down [I, F]. */
export interface ExpertWeights {
  readonly gate: Argument;
  readonly up: Argument;
  readonly down: Argument;
}

/** What a routing's experts make of x [..., I]; see {@link expertsOp}. */
export function experts(x: Argument, { weights, order, place, offsets }: Routing, maps: readonly ExpertWeights[]): Tensor {
  const parts = (['gate', 'up', 'down'] as const).flatMap((name) => maps.map((map) => map[name]));
  const [y, h] = apply(expertsOp, [x, weights, order, place, offsets, ...parts], { k: weights.shape[1]! });
  // The tape holds h where there is a backward pass to come.
  h!.dispose();
  return y!;
}
