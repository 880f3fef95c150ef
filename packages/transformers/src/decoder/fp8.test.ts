import {
  backward,
  checkpoint,
  Device,
  type DType,
  Fp8Training,
  fromHost,
  full,
  Linear,
  LocalStore,
  type Module,
  Random,
  ReferenceBackend,
  scope,
  type Tensor,
  watch,
} from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { decoderConfig } from '../families/index.js';
import { MLP } from './mlp.js';

/** Composes whole maps of their pieces, as devices do: those write the state. */
class Pieces extends ReferenceBackend {
  override supports(op: string, dtypes: readonly DType[]): boolean {
    return op !== 'linear_fp8' && op !== 'mlp_fp8' && super.supports(op, dtypes);
  }
}

/** Output, gradient of the input and of all weights of a model on one batch, after `steps` of looking. */
function run(model: Module<[Tensor], Tensor>, size: number, eightBits: boolean, options: { steps?: number; recompute?: boolean } = {}) {
  const device = new Device(new Pieces());
  const store = new LocalStore(model, device, { dtype: 'bf16', gradientDtype: 'bf16' });
  const fp8 = eightBits ? new Fp8Training(model, device, { history: 4 }) : undefined;
  const x = { ...new Random(5).randn(37, size), dtype: 'bf16' as const };
  const results: Float64Array[] = [];
  for (let step = 0; step < (options.steps ?? 1); step++) {
    store.zeroGrad();
    results.length = 0;
    scope(() => {
      const { tensor, leaf } = watch(fromHost(device, x));
      const y = options.recompute ? (checkpoint((input) => model.call(input), tensor) as Tensor) : model.call(tensor);
      results.push(y.readSync().data);
      backward(y, full(device, y.shape, 'bf16', 1e-6));
      results.push(leaf.gradient!.readSync().data);
      leaf.gradient!.dispose();
    });
    for (const name of store.stateDict().keys()) results.push(store.gradientOf(name)!.readSync().data);
    fp8?.advance();
  }
  fp8?.dispose();
  store.dispose();
  model.dispose();
  expect(device.liveBuffers).toBe(0);
  return results;
}

/** Of the difference, relative to the norm. */
function distance(a: Float64Array, b: Float64Array): number {
  const norm = (values: Float64Array) => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));
  return norm(a.map((v, i) => v - b[i]!)) / norm(b);
}

const config = (layers = 1) =>
  decoderConfig({
    model_type: 'llama',
    vocab_size: 32,
    hidden_size: 32,
    num_hidden_layers: layers,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    intermediate_size: 48,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    rope_theta: 1e4,
    tie_word_embeddings: false,
  });

const opt = {
  model_type: 'opt',
  vocab_size: 32,
  hidden_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  activation_function: 'gelu',
};

describe('linear layers in 8 bits', () => {
  it.each([
    ['a linear layer', () => new Linear(32, 48), 32],
    ['a linear layer stored the other way', () => new Linear(32, 48, { layout: 'in_out' }), 32],
    ['the feed-forward part', () => new MLP(config()), 32],
    ['one with gate and up in one map', () => new MLP({ ...config(), names: { ...config().names, mlpIn: ['gate_up_proj'] } }), 32],
    ['one that GELU gates', () => new MLP({ ...config(), mlp: 'geglu_tanh' }), 32],
    ['one without a gate, with biases', () => new MLP(decoderConfig({ ...opt, ffn_dim: 48 })), 32],
  ] as const)(
    '%s: results and gradients are those of bf16 but for rounding, with scales of the first step and of later ones',
    (_, make, size) => {
      const expected = run(make(), size, false);
      for (const steps of [1, 3]) {
        const got = run(make(), size, true, { steps });
        for (const [i, values] of got.entries()) expect(distance(values, expected[i]!), `result ${i}, step ${steps}`).toBeLessThan(0.1);
      }
    },
  );

  it('a recomputed layer has the bits of one that kept its activations', () => {
    const options = { steps: 2 };
    expect(run(new MLP(config()), 32, true, { ...options, recompute: true })).toEqual(run(new MLP(config()), 32, true, options));
  });

  it('layers whose sizes are no multiples of 16 stay as they are', () => {
    expect(run(new Linear(24, 48), 24, true)).toEqual(run(new Linear(24, 48), 24, false));
  });
});

it('goes on from a state with the scales of training that was not interrupted', async () => {
  const device = new Device(new Pieces());
  const model = new Linear(32, 48, { bias: false });
  const store = new LocalStore(model, device, { dtype: 'bf16', gradientDtype: 'bf16' });
  const output = (fp8: Fp8Training, seed: number) => {
    const y = scope(() => model.call(fromHost(device, { ...new Random(seed).randn(8, 32), dtype: 'bf16' as const })).readSync().data);
    fp8.advance();
    return y;
  };
  const straight = new Fp8Training(model, device, { history: 4 });
  output(straight, 1);
  output(straight, 2);
  const state = await straight.state();
  const expected = [output(straight, 3), output(straight, 4)];
  straight.dispose();
  const resumed = new Fp8Training(model, device, { history: 4 });
  resumed.load(state);
  expect([output(resumed, 3), output(resumed, 4)]).toEqual(expected);
  expect([...state.layers.values()].map(({ shape }) => shape)).toEqual([[3, 6]]);
  resumed.dispose();
  store.dispose();
  model.dispose();
  expect(device.liveBuffers).toBe(0);
});
