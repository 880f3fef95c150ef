import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { backward } from '../autograd/backward.js';
import { checkpoint } from '../autograd/checkpoint.js';
import { watch } from '../autograd/leaf.js';
import { noGrad } from '../autograd/mode.js';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { init } from '../nn/init.js';
import { fusedLinear, Linear } from '../nn/layers.js';
import { LocalStore } from '../nn/local-store.js';
import { Module } from '../nn/module.js';
import { fromHost } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { gelu } from './gelu.js';
import { type MlpActivation, mlp } from './mlp.js';
import { Random } from './random-samples.js';
import { swiglu } from './swiglu.js';

/** Has kernels for the small ops only, as most backends do: the large ones are composed. */
class SmallOps extends ReferenceBackend {
  override supports(op: string): boolean {
    return !['mlp', 'linear_gelu', 'linear_gelu_backward', 'gelu_backward_recompute', 'swiglu_backward_recompute'].includes(op);
  }
}

const ROWS = 6;
const DIM = 5;
const HIDDEN = 8;

class FeedForward extends Module<[Tensor], Tensor> {
  readonly first: Linear[];
  readonly last: Linear;

  constructor(
    readonly activation: MlpActivation,
    readonly bias: boolean,
    readonly asOne: boolean,
  ) {
    super();
    const options = { bias, init: init.normal(0.7) };
    this.first = (activation === 'swiglu' ? ['gate', 'up'] : ['in']).map(() => new Linear(DIM, HIDDEN, options));
    this.last = new Linear(HIDDEN, DIM, options);
  }

  override *children() {
    for (const [i, layer] of this.first.entries()) yield [`first${i}`, layer] as const;
    yield ['last', this.last] as const;
  }

  forward(x: Tensor): Tensor {
    const { activation, first, last } = this;
    if (this.asOne) return mlp(x, first, last, activation, 'out_in');
    const h = fusedLinear(x, first);
    return last.forward(activation === 'swiglu' ? swiglu(h) : gelu(h, activation === 'gelu' ? 'none' : 'tanh'));
  }
}

let device: Device;
beforeEach(() => {
  device = new Device(new SmallOps());
});
afterEach(() => {
  expect(device.describeLive(), 'buffers alive at the end').toEqual([]);
});

/** Output, gradient of x (undefined if not wanted) and all gradients of weights after two backward passes that add up. */
function train(model: FeedForward, { dtype = 'f32', wantsInput = true, frozen = [] as string[], recompute = false } = {}) {
  const store = new LocalStore(model, device, { dtype: dtype as 'f32', gradientDtype: dtype as 'f32' });
  for (const name of frozen)
    for (const [i, layer] of [...model.first, model.last].entries()) {
      if (name === `weight${i}`) layer.weight.requiresGrad = false;
      if (name === `bias${i}`) layer.bias!.requiresGrad = false;
    }
  const result: Record<string, number[] | undefined> = {};
  for (const seed of [1, 2]) {
    scope(() => {
      const random = new Random(seed);
      const host = { ...random.randn(ROWS, DIM), dtype: dtype as 'f32' };
      const { tensor: x, leaf } = wantsInput ? watch(fromHost(device, host)) : { tensor: fromHost(device, host), leaf: undefined };
      const y = (recompute ? checkpoint((z) => model.call(z), x) : model.call(x)) as Tensor;
      result[`y${seed}`] = [...y.readSync().data];
      backward(y, fromHost(device, { ...random.randn(ROWS, DIM), dtype: dtype as 'f32' }));
      if (leaf) result[`dx${seed}`] = [...leaf.gradient!.readSync().data];
      leaf?.gradient?.dispose();
    });
  }
  for (const name of store.stateDict().keys()) {
    const gradient = store.gradientOf(name);
    result[name] = gradient && [...gradient.readSync().data];
  }
  store.dispose();
  return result;
}

describe('mlp', () => {
  const cases: [MlpActivation, boolean][] = [
    ['gelu', true],
    ['gelu_tanh', true],
    ['gelu_tanh', false],
    ['swiglu', true],
    ['swiglu', false],
  ];
  it.each(cases)('gives the bits of its parts: %s, biases: %s', (activation, bias) => {
    for (const dtype of ['f32', 'bf16']) {
      for (const recompute of [false, true]) {
        const parts = train(new FeedForward(activation, bias, false), { dtype });
        expect(train(new FeedForward(activation, bias, true), { dtype, recompute })).toEqual(parts);
      }
    }
  });

  it.each([
    [['weight0']],
    [['weight1']],
    [['weight0', 'bias0']],
    [['weight1', 'bias1']],
    [['bias0', 'weight1']],
    [['weight0', 'bias0', 'weight1']],
  ])('computes only the gradients that are wanted: %s frozen', (frozen) => {
    for (const wantsInput of [true, false]) {
      const parts = train(new FeedForward('gelu', true, false), { frozen, wantsInput });
      expect(train(new FeedForward('gelu', true, true), { frozen, wantsInput })).toEqual(parts);
    }
  });

  it('keeps x and h for the backward pass, and not the activation', () => {
    const kept = (asOne: boolean): number => {
      const model = new FeedForward('gelu', false, asOne);
      const store = new LocalStore(model, device);
      try {
        return scope(() => {
          const x = fromHost(device, new Random().randn(ROWS, DIM));
          const before = device.memory('activations').live;
          const y = model.call(x);
          return device.memory('activations').live - before - y.byteLength;
        });
      } finally {
        store.dispose();
      }
    };
    expect(kept(true)).toBe(4 * ROWS * HIDDEN);
    expect(kept(false)).toBe(2 * 4 * ROWS * HIDDEN);
  });

  it('keeps nothing where no gradient is recorded', () => {
    const model = new FeedForward('swiglu', true, true);
    const store = new LocalStore(model, device);
    scope(() => {
      const x = fromHost(device, new Random().randn(ROWS, DIM));
      const before = device.memory('activations').live;
      const y = noGrad(() => model.forward(x));
      expect(device.memory('activations').live - before).toBe(y.byteLength);
    });
    store.dispose();
  });

  it('borrows weights from their store and hands each back', () => {
    const model = new FeedForward('swiglu', true, true);
    const store = new LocalStore(model, device);
    let borrowed = 0;
    const { use } = store;
    store.use = (parameter) => {
      borrowed++;
      return use.call(store, parameter);
    };
    store.done = () => {
      borrowed--;
    };
    scope(() => {
      const y = model.call(fromHost(device, new Random().randn(ROWS, DIM)));
      expect(borrowed).toBe(0);
      backward(y, fromHost(device, new Random().randn(ROWS, DIM)));
      expect(borrowed).toBe(0);
    });
    store.dispose();
  });
});
