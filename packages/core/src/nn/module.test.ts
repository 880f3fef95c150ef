import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { add } from '../ops/index.js';
import { tensor } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import type { Tensor } from '../tensor/tensor.js';
import { init } from './init.js';
import { Embedding, Linear } from './layers.js';
import { LocalStore } from './local-store.js';
import { Module, namedModules, namedParameters, unitsOf } from './module.js';
import { Parameter } from './parameter.js';

class Block extends Module<[Tensor], Tensor> {
  override readonly isUnit = true;
  readonly layer = new Linear(2, 2);
  readonly inner = new Embedding(3, 2); // a unit inside a unit belongs to the outer one

  forward(x: Tensor): Tensor {
    return this.layer.call(x);
  }
}

class Model extends Module<[Tensor], Tensor> {
  readonly embed = new Embedding(5, 2);
  readonly blocks = [new Block(), new Block()];
  readonly gain = new Parameter([2], init.constant(1));
  readonly head = new Linear(2, 5, { bias: false });
  readonly notAModule = [1, 2];

  constructor() {
    super();
    Object.assign(this.head, { weight: this.embed.weight });
  }

  forward(x: Tensor): Tensor {
    return x;
  }
}

const shapes = (model: Module) => Object.fromEntries([...namedParameters(model)].map(([name, { shape }]) => [name, shape]));

describe('names', () => {
  it('are dotted paths through fields and lists; a tied parameter comes once, by its first name', () => {
    expect(Object.keys(shapes(new Model()))).toEqual([
      'gain',
      'embed.weight',
      'blocks.0.layer.weight',
      'blocks.0.layer.bias',
      'blocks.0.inner.weight',
      'blocks.1.layer.weight',
      'blocks.1.layer.bias',
      'blocks.1.inner.weight',
    ]);
    expect([...namedModules(new Block())].map(([name]) => name)).toEqual(['', 'layer', 'inner']);
  });
});

describe('units', () => {
  it('are the modules that say so, outermost first; what is under none is one of its own', () => {
    const units = unitsOf(new Model()).map(({ name, parameters }) => [name, [...parameters.keys()]]);
    expect(units).toEqual([
      ['embed', ['embed.weight']],
      ['blocks.0', ['blocks.0.layer.weight', 'blocks.0.layer.bias', 'blocks.0.inner.weight']],
      ['blocks.1', ['blocks.1.layer.weight', 'blocks.1.layer.bias', 'blocks.1.inner.weight']],
      ['root', ['gain']],
    ]);
  });

  it('hold every parameter once', () => {
    for (const model of [new Model(), new Block()]) {
      const names = unitsOf(model).flatMap(({ parameters }) => [...parameters.keys()]);
      expect(names.sort()).toEqual([...namedParameters(model).keys()].sort());
    }
  });
});

describe('a model with a store', () => {
  let device: Device;
  beforeEach(() => {
    device = new Device(new ReferenceBackend());
  });
  afterEach(() => {
    expect(device.describeLive()).toEqual([]);
  });

  it('has no values before, and one store at a time', () => {
    const model = new Block();
    expect(() => model.layer.weight.use()).toThrow('a parameter of shape [2, 2] has no storage yet');
    const store = new LocalStore(model, device);
    const before = store.stateDict().get('layer.weight')!.readSync();
    expect(() => new LocalStore(model, device)).toThrow('this model is already held by another store');
    expect(model.layer.weight.use().readSync()).toEqual(before);
    store.dispose();
    new LocalStore(model, device).dispose();
    expect(() => model.layer.weight.use()).toThrow('no storage');
  });

  it('begins with values that depend on seed and name alone', () => {
    const values = (seed: number) => {
      const store = new LocalStore(new Block(), device, { seed });
      const result = [...store.stateDict().get('layer.weight')!.readSync().data];
      store.dispose();
      return result;
    };
    expect(values(1)).toEqual(values(1));
    expect(values(1)).not.toEqual(values(2));
    const bound = 1 / Math.sqrt(2);
    for (const value of values(1)) expect(Math.abs(value)).toBeLessThanOrEqual(bound);
  });

  it('frees at the end of a call what it did not return', () => {
    const model = new (class extends Module<[Tensor], Tensor> {
      forward(x: Tensor): Tensor {
        add(x, x);
        return add(add(x, x), x);
      }
    })();
    using x = tensor(device, [1, 2], 'f32');
    using y = model.call(x);
    expect([...y.readSync().data]).toEqual([3, 6]);
    expect(device.liveBuffers).toBe(2);
  });
});
