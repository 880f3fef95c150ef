import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { DisposedError } from '../errors.js';
import { init } from '../nn/init.js';
import { Embedding, LayerNorm, Linear } from '../nn/layers.js';
import { LocalStore } from '../nn/local-store.js';
import { Module } from '../nn/module.js';
import { Parameter } from '../nn/parameter.js';
import { add, dropout, gelu, linear, linearCrossEntropy, mul, scale } from '../ops/index.js';
import { withRandom } from '../random/context.js';
import { full, tensor } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { backward } from './backward.js';
import { checkpoint } from './checkpoint.js';
import { watch } from './leaf.js';
import { noGrad } from './mode.js';

let device: Device;
beforeEach(() => {
  device = new Device(new ReferenceBackend());
});
afterEach(() => {
  expect(device.describeLive(), 'buffers alive at the end').toEqual([]);
});

const vector = (...values: number[]): Tensor => tensor(device, values, 'f32');
const values = (x: Tensor): number[] => [...x.readSync().data];

/** The gradient of `body` at `at`, back-propagated from ones. */
function gradientOf(at: number[], body: (x: Tensor) => Tensor): number[] {
  return scope(() => {
    const { tensor: x, leaf } = watch(vector(...at));
    const y = body(x);
    backward(y, full(device, y.shape, 'f32', 1));
    using gradient = leaf.gradient!;
    return values(gradient);
  });
}

describe('backward', () => {
  it('adds up what comes back along every path', () => {
    expect(gradientOf([2, 3], (x) => add(mul(x, x), x))).toEqual([5, 7]);
    expect(gradientOf([2, 3], (x) => mul(mul(x, x), add(x, x)))).toEqual([24, 54]); // of 2 x^3
    expect(gradientOf([2, 3], (x) => add(add(x, x), add(x, x)))).toEqual([4, 4]);
  });

  it('goes through views', () => {
    expect(gradientOf([1, 2, 3, 4], (x) => mul(x.view([2, 2]), x.view([2, 2])).view([4]))).toEqual([2, 4, 6, 8]);
  });

  it('does not spoil a gradient that two owners share', () => {
    // add hands its gradient to both inputs: what is added to the one later must not show in the other.
    expect(gradientOf([1], (x) => add(scale(x, 10), add(x, scale(x, 100))))).toEqual([111]);
    scope(() => {
      const a = watch(vector(1));
      const b = watch(vector(1));
      const sum = add(a.tensor, b.tensor);
      backward(add(sum, scale(a.tensor, 5)), vector(1));
      using ga = a.leaf.gradient!;
      using gb = b.leaf.gradient!;
      expect([values(ga), values(gb)]).toEqual([[6], [1]]);
    });
  });

  it('starts a scalar with 1, and wants a gradient for anything else', () => {
    expect(
      scope(() => {
        const { tensor: x, leaf } = watch(full(device, [], 'f32', 3));
        backward(mul(x, x));
        using gradient = leaf.gradient!;
        return values(gradient);
      }),
    ).toEqual([6]);
    scope(() => {
      const { tensor: x } = watch(vector(1, 2));
      expect(() => backward(mul(x, x))).toThrow('[backward] a tensor of shape [2] needs a gradient of the same shape');
    });
  });

  it('says why there is no history', () => {
    scope(() => {
      expect(() => backward(vector(1))).toThrow('nothing it was computed from wants a gradient');
      expect(() => noGrad(() => backward(vector(1)))).toThrow('it was made under noGrad()');
      const gone = vector(1);
      gone.dispose();
      expect(() => backward(gone)).toThrow(DisposedError);
    });
  });

  it('records nothing under noGrad', () => {
    scope(() => {
      const { tensor: x } = watch(vector(1));
      expect(noGrad(() => mul(x, x)).node).toBeNull();
      expect(mul(x, x).node).not.toBeNull();
    });
  });
});

describe('the graph', () => {
  it('is freed with its last tensor when backward is never run', () => {
    const y = scope(() => {
      const { tensor: x } = watch(vector(1, 2, 3));
      return mul(mul(x, x), mul(x, x));
    });
    expect(device.liveBuffers).toBeGreaterThan(1);
    y.dispose();
    expect(device.liveBuffers).toBe(0);
  });

  it('lets go of what it saved as backward consumes it', () => {
    scope(() => {
      const { tensor: x, leaf } = watch(vector(1, 2, 3));
      using seed = vector(1, 1, 1);
      const y = scope(() => mul(mul(x, x), mul(x, x)));
      expect(device.liveBuffers).toBe(5); // the vector, the seed, y, and the two squares that were saved
      backward(y, seed);
      leaf.gradient!.dispose();
      expect(device.liveBuffers).toBe(3);
    });
  });

  it('refuses a gradient of another size', () => {
    scope(() => {
      const { tensor: x } = watch(vector(1, 2));
      expect(() => backward(mul(x, x), vector(1, 2, 3))).toThrow('[backward] expected a gradient of shape [2], got [3]');
    });
  });

  it('is freed when an op fails in the middle of backward', () => {
    const failing = vi.spyOn(device.backend, 'launch');
    scope(() => {
      const { tensor: x } = watch(vector(1, 2));
      const y = mul(scale(x, 2), mul(x, x));
      const seed = vector(1, 2);
      failing.mockImplementation((op) => {
        if (op === 'scale') throw new Error('not today');
      });
      expect(() => backward(y, seed)).toThrow('not today');
    });
    failing.mockRestore();
  });
});

class Tied extends Module<[Tensor, Tensor], Tensor> {
  readonly embed = new Embedding(7, 4, init.normal(0.5));
  readonly norm = new LayerNorm(4);
  readonly layer = new Linear(4, 4);

  forward(ids: Tensor, labels: Tensor): Tensor {
    const x = this.embed.call(ids);
    const y = this.norm.call(x, gelu(this.layer.call(x))).y;
    return linearCrossEntropy(y, this.embed.weight, labels);
  }
}

describe('parameters', () => {
  it('get the sum over all their uses, final once and after the last', () => {
    const w = new Parameter([2, 2], init.constant(0.5));
    const model = new (class extends Module {
      readonly w = w;
      forward() {}
    })();
    const store = new LocalStore(model, device);
    const finals: number[][] = [];
    store.onGradient = () => finals.push(values(store.gradientOf('w')!));
    scope(() => {
      const y = linear(linear(tensor(device, [1, 2], 'f32', [1, 2]), [w]), [w]);
      backward(y, tensor(device, [1, 1], 'f32', [1, 2]));
    });
    // y = W W x with all of W 0.5: dW = dy (Wx)' + (W'dy) x' = 1.5 + [1, 2] in each row.
    expect(finals).toEqual([[2.5, 3.5, 2.5, 3.5]]);
    store.dispose();
  });

  it('that are tied get the gradient of both ends', () => {
    const model = new Tied();
    const store = new LocalStore(model, device, { seed: 1 });
    const ids = [0, 3, 3, 5];
    const numeric = (at: number) => {
      const weight = store.stateDict().get('embed.weight')!;
      const loss = (by: number) => {
        const moved = weight.readSync();
        moved.data[at]! += by;
        device.backend.write(weight.handle, 0, new Uint8Array(Float32Array.from(moved.data).buffer));
        const result = scope(() => values(noGrad(() => run(model, ids)))[0]!);
        moved.data[at]! -= by;
        device.backend.write(weight.handle, 0, new Uint8Array(Float32Array.from(moved.data).buffer));
        return result;
      };
      return (loss(0.01) - loss(-0.01)) / 0.02;
    };
    scope(() => backward(run(model, ids)));
    const gradient = values(store.gradientOf('embed.weight')!);
    for (const at of [0, 1, 13, 14, 22, 27]) expect(gradient[at]).toBeCloseTo(numeric(at), 3);
    store.dispose();
  });

  it('accumulate over passes until zeroGrad', () => {
    const model = new Tied();
    const store = new LocalStore(model, device);
    const pass = () => {
      scope(() => backward(run(model, [1, 2])));
      return values(store.gradientOf('layer.bias')!);
    };
    const once = pass();
    const twice = pass();
    for (const [i, value] of once.entries()) expect(twice[i]).toBeCloseTo(2 * value, 6);
    store.zeroGrad();
    expect(pass()).toEqual(once);
    store.dispose();
  });

  it('that are frozen get none, and cost none', () => {
    const model = new Tied();
    model.layer.weight.requiresGrad = false;
    const store = new LocalStore(model, device);
    scope(() => backward(run(model, [1, 2])));
    expect(store.gradientOf('layer.weight')).toBeUndefined();
    expect(store.gradientOf('layer.bias')).toBeDefined();
    store.dispose();
  });
});

function run(model: Tied, ids: number[]): Tensor {
  return model.call(tensor(device, ids, 'i32'), tensor(device, [...ids].reverse(), 'i32'));
}

describe('checkpoint', () => {
  const trained = (recompute: boolean): { gradients: Record<string, number[]>; saved: number } => {
    const model = new (class extends Module<[Tensor], Tensor> {
      readonly a = new Linear(3, 5);
      readonly b = new Linear(5, 3);
      forward(x: Tensor): Tensor {
        return add(x, this.b.call(dropout(gelu(this.a.call(x)), 0.4)));
      }
    })();
    const store = new LocalStore(model, device, { seed: 4 });
    const saved = scope(() => {
      const input = watch(tensor(device, [1, -2, 3, -1, 2, -3], 'f32', [2, 3]));
      const before = device.memory('activations').live;
      const y = scope(() =>
        withRandom({ seed: 9, step: 2 }, () => {
          const block = (x: Tensor) => (recompute ? (checkpoint((inner) => model.call(inner), x) as Tensor) : model.call(x));
          return dropout(block(block(dropout(input.tensor, 0.1))), 0.2);
        }),
      );
      const kept = device.memory('activations').live - before;
      backward(y, full(device, y.shape, 'f32', 1));
      input.leaf.gradient!.dispose();
      return kept;
    });
    const gradients = Object.fromEntries(['a', 'b'].map((name) => [name, values(store.gradientOf(`${name}.weight`)!)]));
    store.dispose();
    return { gradients, saved };
  };

  it('gives the same bits as keeping everything, dropout included, and keeps less', () => {
    const [kept, recomputed] = [trained(false), trained(true)];
    expect(recomputed.gradients).toEqual(kept.gradients);
    expect(recomputed.saved).toBeLessThan(kept.saved);
  });

  it('calls a parameter final only when its recomputed uses are done too', () => {
    const w = new Parameter([1, 1], init.constant(3));
    const model = new (class extends Module {
      readonly w = w;
      forward() {}
    })();
    const store = new LocalStore(model, device);
    const finals: number[][] = [];
    store.onGradient = () => finals.push(values(store.gradientOf('w')!));
    scope(() => {
      const { tensor: x, leaf } = watch(tensor(device, [2], 'f32', [1, 1]));
      const y = checkpoint((inner) => linear(linear(inner, [w]), [w]), x) as Tensor;
      backward(linear(y, [w]), tensor(device, [1], 'f32', [1, 1]));
      leaf.gradient!.dispose();
    });
    expect(finals).toEqual([[54]]); // d/dw of w^3 x = 3 w^2 x
    store.dispose();
  });

  it('may hand on what it was given', () => {
    for (const run of [true, false]) {
      scope(() => {
        const { tensor: x, leaf } = watch(vector(2, 3));
        const before = mul(x, x);
        const [same, twice] = checkpoint((inner) => [inner, scale(inner, 2)], before) as [Tensor, Tensor];
        expect(before.node).not.toBe(same.node);
        if (!run) return;
        backward(add(mul(same, twice), before), vector(1, 1));
        using gradient = leaf.gradient!;
        expect(values(gradient)).toEqual([8 * 8 + 4, 8 * 27 + 6]); // of 2 x^4 + x^2
      });
    }
  });

  it('is freed when backward is never run', () => {
    scope(() => {
      const { tensor: x } = watch(vector(1, 2));
      checkpoint((inner) => mul(inner, inner), x);
    });
  });
});
