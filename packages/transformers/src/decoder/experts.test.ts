import {
  Device,
  fromHost,
  hostTensor,
  LocalStore,
  linear,
  type Module,
  mlp,
  namedParameters,
  noGrad,
  Random,
  ReferenceBackend,
  scope,
  softmax,
  withRandom,
} from '@deepspeed-ts/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decoderConfig } from '../families/index.js';
import { DecoderLM } from './decoder.js';
import { SparseExperts } from './experts.js';

const config = (more: object = {}) =>
  decoderConfig({
    model_type: 'mixtral',
    vocab_size: 11,
    hidden_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 12,
    num_local_experts: 2,
    initializer_range: 0.5,
    ...more,
  });

describe('a mixture of experts', () => {
  it("has the parameters of Hugging Face's Mixtral", () => {
    const names = [...namedParameters(new DecoderLM(config()))].map(([name, { shape }]) => `${name} ${shape.join(' x ')}`);
    expect(names.filter((name) => name.includes('moe'))).toEqual([
      'model.layers.0.block_sparse_moe.gate.weight 2 x 8',
      'model.layers.0.block_sparse_moe.experts.0.w1.weight 12 x 8',
      'model.layers.0.block_sparse_moe.experts.0.w2.weight 8 x 12',
      'model.layers.0.block_sparse_moe.experts.0.w3.weight 12 x 8',
      'model.layers.0.block_sparse_moe.experts.1.w1.weight 12 x 8',
      'model.layers.0.block_sparse_moe.experts.1.w2.weight 8 x 12',
      'model.layers.0.block_sparse_moe.experts.1.w3.weight 12 x 8',
    ]);
  });

  it('gives what a sum over all experts gives in which those that a token did not choose have no share', () => {
    const cases = fc.record({
      tokens: fc.integer({ min: 1, max: 9 }),
      count: fc.integer({ min: 1, max: 6 }),
      perToken: fc.integer({ min: 1, max: 6 }),
      seed: fc.integer({ min: 0, max: 1000 }),
    });
    fc.assert(
      fc.property(cases, ({ tokens, count, perToken, seed }) => {
        const k = Math.min(perToken, count);
        const sizes = config({ num_local_experts: count, num_experts_per_tok: k });
        const { part, store, device } = onReference(sizes, seed);
        scope(() => {
          const x = fromHost(device, new Random(seed).randn(1, tokens, sizes.dim));
          const { y } = noGrad(() => part.call(x));
          const weight = (name: string) => store.stateDict().get(name)!;
          const scores = softmax(linear(x, [weight('gate.weight')])).readSync().data;
          const all = Array.from({ length: count }, (_, e) => {
            const [gate, down, up] = ['w1', 'w2', 'w3'].map((map) => ({ weight: weight(`experts.${e}.${map}.weight`) }));
            return mlp(x, [gate!, up!], down!, 'swiglu', 'out_in').readSync().data;
          });
          const expected = new Float64Array(tokens * sizes.dim);
          for (let token = 0; token < tokens; token++) {
            const row = [...scores.subarray(token * count, (token + 1) * count).entries()].sort(([, a], [, b]) => b - a).slice(0, k);
            const sum = row.reduce((total, [, p]) => total + p, 0);
            for (const [e, p] of row)
              for (let i = 0; i < sizes.dim; i++) expected[token * sizes.dim + i]! += (p / sum) * all[e]![token * sizes.dim + i]!;
          }
          for (const [i, value] of y.readSync().data.entries()) expect(value).toBeCloseTo(expected[i]!, 4);
        });
        store.dispose();
        expect(device.describeLive()).toEqual([]);
      }),
      { numRuns: 40 },
    );
  });

  it('shakes what it routes in training alone, and with the same bits each time', () => {
    const { part, store, device } = onReference(config({ router_jitter_noise: 0.2 }), 1);
    scope(() => {
      const x = fromHost(device, new Random().randn(1, 5, 8));
      const run = () => part.call(x).y.readSync().data;
      const training = (step: number) => withRandom({ seed: 7, step }, run);
      expect(run()).toEqual(run());
      expect(training(0)).toEqual(training(0));
      expect(training(0)).not.toEqual(run());
      expect(training(0)).not.toEqual(training(1));
    });
    store.dispose();
    expect(device.describeLive()).toEqual([]);
  });

  it('routes tokens whose scores are no numbers somewhere, and says so in what it gives', () => {
    const { part, store, device } = onReference(config(), 1);
    scope(() => {
      const x = fromHost(device, hostTensor([1, 2, 8], 'f32', new Random().randn(2, 8).data.fill(Number.NaN, 0, 8)));
      const y = part.call(x).y.readSync().data;
      expect(y.subarray(0, 8).every(Number.isNaN)).toBe(true);
      expect(y.subarray(8).every(Number.isFinite)).toBe(true);
    });
    store.dispose();
  });

  it('needs as many experts as a token chooses, and no more than kernels take', () => {
    expect(() => config({ num_experts_per_tok: 3 })).toThrow(
      '[decoderConfig] expected at most 128 experts and at least one of them for each token, got 3 of 2',
    );
    expect(() => config({ num_local_experts: 200 })).toThrow('got 2 of 200');
  });
});

/** The part alone, its parameters in a store on the reference backend. */
function onReference(sizes: ReturnType<typeof config>, seed: number) {
  const device = new Device(new ReferenceBackend());
  const part = new SparseExperts(sizes, sizes.experts!);
  const store = new LocalStore(part as Module, device, { seed });
  return { part, store, device };
}
