import { type Argument, apply } from '../autograd/apply.js';
import { hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';
import { type Routing, routedSample } from './route.js';

/**
 * How evenly a router spreads its tokens: f32 [2, E], how many tokens chose each expert, and the sum over tokens of the probability
 * that it was given. Inputs logits [..., E] and the routing's offsets. What several layers have add up.
 */
export const routerLoadOp = defineOp<Record<never, number>>({
  name: 'router_load',
  attrs: [],
  infer([logits, offsets]) {
    expectFloat('router_load', 'logits', logits!);
    expect(offsets!.dtype === 'i32' && columns(offsets!) === columns(logits!) + 1, 'router_load', 'offsets of as many experts', offsets!);
    return [{ shape: [2, columns(logits!)], dtype: 'f32' }];
  },
  reference([logits, offsets], _, [load]) {
    const experts = columns(logits!);
    load!.data.fill(0);
    for (let e = 0; e < experts; e++) load!.data[e] = offsets!.data[e + 1]! - offsets!.data[e]!;
    for (let token = 0; token < rowsOf(logits!); token++) {
      for (const [e, p] of probabilities(logits!.data, token, experts).entries()) load!.data[experts + e]! += p;
    }
  },
  saves: { inputs: [0] },
  vjp({ input, grad, into }) {
    launch(routerLoadBackward, [grad(0)!, input(0)], [into(0).tensor], {});
  },
  samples: (r) => [
    { inputs: [r.randn(2, 3, 5), routedSample(r, 6, 5, 2).offsets], attrs: {} },
    { inputs: [r.uniform(-9, 9, 1037, 8), routedSample(r, 1037, 8, 2).offsets], attrs: {}, differentiable: [] },
    { inputs: [r.randn(70, 126), routedSample(r, 70, 126, 4).offsets], attrs: {}, differentiable: [] },
  ],
});

/** dlogits of the probabilities' sums, from row 1 of dload [2, E]; nothing flows through counts. */
export const routerLoadBackward = defineOp<Record<never, number>>({
  name: 'router_load_backward',
  attrs: [],
  infer: ([, logits]) => [{ shape: logits!.shape, dtype: logits!.dtype }],
  reference([dload, logits], _, [dlogits]) {
    const experts = columns(logits!);
    const upstream = dload!.data.subarray(experts);
    for (let token = 0; token < rowsOf(logits!); token++) {
      const p = probabilities(logits!.data, token, experts);
      const dot = p.reduce((sum, value, e) => sum + value * upstream[e]!, 0);
      for (let e = 0; e < experts; e++) dlogits!.data[token * experts + e] = p[e]! * (upstream[e]! - dot);
    }
  },
  samples: (r) => [
    { inputs: [r.randn(2, 5), r.randn(7, 5)], attrs: {} },
    { inputs: [r.randn(2, 126), r.uniform(-9, 9, 70, 126)], attrs: {} },
  ],
});

/**
 * The auxiliary loss that keeps experts evenly used (Fedus et al., arXiv:2101.03961, eq. 4 to 6): E sum_e (c_e / n) (p_e / n) over a load
 * [2, E] = [c, p] of n tokens, those of all layers counted. f32 [].
 */
export const loadBalanceOp = defineOp<{ tokens: number }>({
  name: 'load_balance',
  attrs: ['tokens'],
  infer([load]) {
    expect(load!.dtype === 'f32' && load!.shape.length === 2 && load!.shape[0] === 2, 'load_balance', 'a load f32[2, experts]', load!);
    return [{ shape: [], dtype: 'f32' }];
  },
  reference([load], { tokens }, [loss]) {
    const experts = columns(load!);
    let sum = 0;
    for (let e = 0; e < experts; e++) sum += load!.data[e]! * load!.data[experts + e]!;
    loss!.data[0] = (experts * sum) / tokens ** 2;
  },
  saves: { inputs: [0] },
  vjp({ attrs, input, grad, into }) {
    launch(loadBalanceBackward, [grad(0)!, input(0)], [into(0).tensor], attrs);
  },
  samples: (r) => [
    { inputs: [r.uniform(0, 5, 2, 8)], attrs: { tokens: 20 } },
    { inputs: [r.uniform(0, 5, 2, 126)], attrs: { tokens: 325 } },
  ],
});

/** Each row of the load gets the other, times E dloss / n^2. */
export const loadBalanceBackward = defineOp<{ tokens: number }>({
  name: 'load_balance_backward',
  attrs: ['tokens'],
  infer: ([, load]) => [{ shape: load!.shape, dtype: 'f32' }],
  reference([dloss, load], { tokens }, [dload]) {
    const experts = columns(load!);
    const factor = (dloss!.data[0]! * experts) / tokens ** 2;
    for (let e = 0; e < experts; e++) {
      dload!.data[e] = factor * load!.data[experts + e]!;
      dload!.data[experts + e] = factor * load!.data[e]!;
    }
  },
  samples: (r) => [{ inputs: [hostTensor([], 'f32', [0.7]), r.uniform(0, 5, 2, 126)], attrs: { tokens: 325 } }],
});

function probabilities(logits: Float64Array, token: number, experts: number): Float64Array {
  const row = logits.subarray(token * experts, (token + 1) * experts);
  const max = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const exps = row.map((value) => Math.exp(value - max));
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / sum);
}

/** The load of a router, f32 [2, E]; see {@link routerLoadOp}. */
export function routerLoad(logits: Argument, { offsets }: Routing): Tensor {
  return apply(routerLoadOp, [logits, offsets], {})[0]!;
}

/** The auxiliary loss of a load of `tokens` tokens; see {@link loadBalanceOp}. */
export function loadBalance(load: Argument, tokens: number): Tensor {
  return apply(loadBalanceOp, [load], { tokens })[0]!;
}
