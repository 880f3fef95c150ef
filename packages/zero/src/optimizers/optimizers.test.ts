import {
  backward,
  Device,
  fromHost,
  hostTensor,
  init,
  Module,
  matmul,
  Parameter,
  ReferenceBackend,
  scope,
  type Tensor,
  uniforms,
} from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import type { FlatOptimizer } from '../optimizer.js';
import { ZeroStore } from '../store.js';
import { adagrad, adam, lion, plainSgd, sgd } from './index.js';

const N = 53;

/** Its gradient is its input, x [53, 1]. */
class Row extends Module<[Tensor], Tensor> {
  readonly weight = new Parameter([1, N], init.normal(1));

  forward(x: Tensor): Tensor {
    return matmul(this.weight, x);
  }
}

/** What one element goes through; `s` starts with zeros. */
type Rule = (p: number, g: number, s: number[], t: number) => number;

const lr = 0.1;
const weightDecay = 0.05;
const betas = [0.9, 0.99] as const;

interface Example {
  readonly optimizer: FlatOptimizer<never>;
  readonly options: object;
  readonly rule: Rule;
}

/** Each rule as its paper, or PyTorch's documentation, writes it. */
const examples: Record<string, Example> = {
  AdamW: {
    optimizer: adam,
    options: { lr, weightDecay, betas, eps: 1e-8, decoupled: true, biasCorrection: true },
    rule(p, g, s, t) {
      s[0] = 0.9 * s[0]! + 0.1 * g;
      s[1] = 0.99 * s[1]! + 0.01 * g * g;
      return p - lr * weightDecay * p - (lr * (s[0] / (1 - 0.9 ** t))) / (Math.sqrt(s[1] / (1 - 0.99 ** t)) + 1e-8);
    },
  },
  'SGD without momentum': {
    optimizer: plainSgd,
    options: { lr, weightDecay },
    rule: (p, g) => p - lr * (g + weightDecay * p),
  },
  'SGD with momentum and dampening': {
    optimizer: sgd,
    options: { lr, weightDecay, momentum: 0.9, dampening: 0.3, nesterov: false },
    rule(p, g, s, t) {
      const d = g + weightDecay * p;
      s[0] = t === 1 ? d : 0.9 * s[0]! + 0.7 * d;
      return p - lr * s[0];
    },
  },
  "SGD with Nesterov's momentum": {
    optimizer: sgd,
    options: { lr, weightDecay, momentum: 0.9, dampening: 0, nesterov: true },
    rule(p, g, s) {
      const d = g + weightDecay * p;
      s[0] = 0.9 * s[0]! + d;
      return p - lr * (d + 0.9 * s[0]);
    },
  },
  Adagrad: {
    optimizer: adagrad,
    options: { lr, weightDecay, eps: 1e-10, lrDecay: 0.2, initialAccumulatorValue: 0.1 },
    rule(p, g, s, t) {
      const d = g + weightDecay * p;
      s[0] = (t === 1 ? 0.1 : s[0]!) + d * d;
      return p - ((lr / (1 + (t - 1) * 0.2)) * d) / (Math.sqrt(s[0]) + 1e-10);
    },
  },
  Lion: {
    optimizer: lion,
    options: { lr, weightDecay, betas },
    rule(p, g, s) {
      const direction = Math.sign(0.9 * s[0]! + 0.1 * g);
      s[0] = 0.99 * s[0]! + 0.01 * g;
      return p - lr * (direction + weightDecay * p);
    },
  },
};

const weight = uniforms({ seed: 1 }, 0, N);
/** Small whole numbers over 8: exact in every dtype. */
const gradient = (step: number) => uniforms({ seed: 2, step }, 0, N).map((u) => Math.round(16 * u - 8) / 8);

describe.each(Object.entries(examples))('%s', (_, { optimizer, options, rule }) => {
  it.each(['f32', 'bf16', 'f16'] as const)('updates as its formula says, with weights in %s', async (dtype) => {
    const device = new Device(new ReferenceBackend());
    const model = new Row();
    const store = new ZeroStore(model, { device, stage: 3, optimizer: optimizer as FlatOptimizer<object>, dtype, initial: () => weight });
    const expected = { weights: Array.from(weight, Math.fround), states: Array.from(weight, () => [0, 0]) };
    for (let t = 1; t <= 5; t++) {
      const g = gradient(t);
      const x = fromHost(device, hostTensor([N, 1], dtype, g));
      scope(() => backward(model.call(x)));
      x.dispose();
      store.finishBackward();
      // As if backward had been scaled by 2.
      store.step({ optionsOf: () => options, gradScale: 0.5 });
      expected.weights = expected.weights.map((p, i) => rule(p, 0.5 * g[i]!, expected.states[i]!, t));
    }
    for await (const [, { data }] of store.export('weights')) expectClose(data, expected.weights);
    for (const [s, name] of optimizer.stateNames.entries()) {
      for await (const [, { data }] of store.export(name))
        expectClose(
          data,
          expected.states.map((state) => state[s]!),
        );
    }
    store.dispose();
    expect(device.liveBuffers).toBe(0);
  });

  it('forgets a step whose gradient was not finite', async () => {
    const run = async (pattern: readonly boolean[]) => {
      const device = new Device(new ReferenceBackend());
      const model = new Row();
      const store = new ZeroStore(model, { device, stage: 0, optimizer: optimizer as FlatOptimizer<object>, initial: () => weight });
      let step = 0;
      for (const bad of pattern) {
        const g = bad ? new Float64Array(N).fill(Number.NaN) : gradient(++step);
        const x = fromHost(device, hostTensor([N, 1], 'f32', g));
        scope(() => backward(model.call(x)));
        x.dispose();
        store.finishBackward();
        store.step({ optionsOf: () => options });
        expect(Number.isFinite(await store.finishStep())).toBe(!bad);
        expect(store.steps).toBe(step);
      }
      const values: number[] = [];
      for await (const [, { data }] of store.export('weights')) values.push(...data);
      store.dispose();
      return values;
    };
    expect(await run([true, false, false, true, true, false])).toEqual(await run([false, false, false]));
  });
});

function expectClose(actual: ArrayLike<number>, expected: readonly number[]): void {
  for (const [i, value] of expected.entries())
    expect(Math.abs(actual[i]! - value), `element ${i}`).toBeLessThan(1e-5 * (1 + Math.abs(value)));
}
