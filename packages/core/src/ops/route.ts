import { type Argument, apply } from '../autograd/apply.js';
import { type HostTensor, hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import { columns, expect, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { launch } from './launch.js';
import type { Random } from './random-samples.js';

/**
 * Which experts each token goes to. An assignment is a pair (token, one of its k choices), numbered token * k + choice; sorted, assignments
 * lie by expert and then by token, so that the rows of an expert are neighbours. All of it stays on the device.
 */
export interface Routing {
  /** f32 [N, k]: a token's shares of its experts, which add up to 1; the largest first. */
  readonly weights: Tensor;
  /** i32 [N k]: the expert of each assignment. */
  readonly chosen: Tensor;
  /** i32 [N k]: the assignment at each sorted place. */
  readonly order: Tensor;
  /** i32 [N k]: the sorted place of each assignment. */
  readonly place: Tensor;
  /** i32 [E + 1]: expert e has the sorted places from offsets[e] up to offsets[e + 1]. */
  readonly offsets: Tensor;
}

/**
 * Top-k routing as in Mixtral (Jiang et al., arXiv:2401.04088): each token of logits [..., E] chooses its k most probable experts, of equal
 * ones that of the lower index, and their probabilities are made to add up to 1, which is a softmax over the chosen logits, in f32.
 */
export const routeOp = defineOp<{ k: number }>({
  name: 'route',
  attrs: ['k'],
  infer([logits], { k }) {
    expectFloat('route', 'logits', logits!);
    expect(k >= 1 && k <= columns(logits!), 'route', `at least k = ${k} experts to choose from`, logits!);
    const [n, experts] = [rowsOf(logits!), columns(logits!)];
    const whole = { shape: [n * k], dtype: 'i32' } as const;
    return [{ shape: [n, k], dtype: 'f32' }, whole, whole, whole, { shape: [experts + 1], dtype: 'i32' }];
  },
  reference([logits], { k }, [weights, chosen, order, place, offsets]) {
    const experts = columns(logits!);
    for (let token = 0; token < rowsOf(logits!); token++) {
      const row = logits!.data.subarray(token * experts, (token + 1) * experts);
      const best = choose(row, k);
      const max = row[best[0]!]!;
      const exps = best.map((e) => Math.exp(row[e]! - max));
      const sum = exps.reduce((a, b) => a + b, 0);
      for (let j = 0; j < k; j++) {
        weights!.data[token * k + j] = exps[j]! / sum;
        chosen!.data[token * k + j] = best[j]!;
      }
    }
    let at = 0;
    for (let e = 0; e < experts; e++) {
      offsets!.data[e] = at;
      for (const [assignment, expert] of chosen!.data.entries()) {
        if (expert !== e) continue;
        order!.data[at] = assignment;
        place!.data[assignment] = at++;
      }
    }
    offsets!.data[experts] = at;
  },
  saves: { outputs: [0, 1] },
  vjp({ output, grad, into }) {
    const dweights = grad(0);
    if (dweights) launch(routeBackward, [dweights, output(0), output(1)], [into(0).tensor], {});
  },
  samples: (r) => [
    { inputs: [r.randn(2, 3, 5)], attrs: { k: 2 } },
    { inputs: [r.randn(7, 4)], attrs: { k: 1 }, note: 'one of them, whose share is 1' },
    { inputs: [r.ints(3, 41, 6)].map(asFloats), attrs: { k: 3 }, differentiable: [], note: 'many that are equal' },
    { inputs: [r.uniform(-30, 30, 2050, 9)], attrs: { k: 2 }, differentiable: [] },
    { inputs: [r.randn(33, 128)], attrs: { k: 8 }, differentiable: [] },
  ],
});

/** Of a softmax over the chosen: dlogits[chosen j] = w_j (dw_j - sum_i w_i dw_i), and zero for the others. */
export const routeBackward = defineOp<Record<never, number>>({
  name: 'route_backward',
  attrs: [],
  // The output says how many experts there are; without it, as many as are chosen.
  infer: ([dweights]) => [{ shape: dweights!.shape, dtype: 'f32' }],
  reference([dweights, weights, chosen], _, [dlogits]) {
    const [k, experts] = [columns(weights!), columns(dlogits!)];
    dlogits!.data.fill(0);
    for (let token = 0; token < rowsOf(weights!); token++) {
      let dot = 0;
      for (let j = 0; j < k; j++) dot += weights!.data[token * k + j]! * dweights!.data[token * k + j]!;
      for (let j = 0; j < k; j++) {
        const i = token * k + j;
        dlogits!.data[token * experts + chosen!.data[i]!] = weights!.data[i]! * (dweights!.data[i]! - dot);
      }
    }
  },
  samples: (r) =>
    [
      [5, 6, 2],
      [301, 9, 3],
    ].map(([tokens, experts, k]) => {
      const { weights, chosen } = routedSample(r, tokens!, experts!, k!);
      return { inputs: [r.randn(tokens!, k!), weights, chosen], attrs: {}, outputs: [r.randn(tokens!, experts!)] };
    }),
});

/** The k largest values of a row, largest first, of equal ones the first; of values that are no numbers, any that are left. */
function choose(row: Float64Array, k: number): number[] {
  const best: number[] = [];
  while (best.length < k) {
    let top = -1;
    for (const [e, value] of row.entries()) if (!best.includes(e) && (top < 0 || value > row[top]!)) top = e;
    best.push(top);
  }
  return best;
}

function asFloats({ shape, data }: HostTensor): HostTensor {
  return hostTensor(shape, 'f32', data);
}

/** Routing of `tokens` random tokens, for samples of ops that take one. */
export function routedSample(r: Random, tokens: number, experts: number, k: number): { readonly [name in keyof Routing]: HostTensor } {
  const logits = r.randn(tokens, experts);
  // One expert that nobody chooses, where the others are enough.
  if (experts > k) for (let token = 0; token < tokens; token++) logits.data[token * experts + 1] = -20;
  const outputs = routeOp.infer([logits], { k }).map(({ shape, dtype }) => hostTensor(shape, dtype));
  routeOp.reference([logits], { k }, outputs);
  const [weights, chosen, order, place, offsets] = outputs as [HostTensor, HostTensor, HostTensor, HostTensor, HostTensor];
  return { weights, chosen, order, place, offsets };
}

/** Routes the tokens of logits [..., E] to k experts each; see {@link routeOp}. */
export function route(logits: Argument, k: number): Routing {
  const [weights, chosen, order, place, offsets] = apply(routeOp, [logits], { k }) as [Tensor, Tensor, Tensor, Tensor, Tensor];
  return { weights, chosen, order, place, offsets };
}
