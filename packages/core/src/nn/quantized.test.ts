import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { noGrad } from '../autograd/mode.js';
import { ReferenceBackend } from '../backend/reference-backend.js';
import { NF4_VALUES, type QuantizedFormat } from '../ops/quantized-format.js';
import { tensor } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import { scope } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { Embedding, LayerNorm, Linear } from './layers.js';
import { LocalStore } from './local-store.js';
import { Module, namedParameters } from './module.js';
import { quantizeWeights } from './quantize-weights.js';
import { Quantized } from './quantized.js';
import type { WeightSource } from './weight-source.js';

let device: Device;
beforeEach(() => {
  device = new Device(new ReferenceBackend());
});
afterEach(() => {
  expect(device.describeLive(), 'buffers alive at the end').toEqual([]);
});

/** Values as they come back from codes. */
function roundTrip(format: QuantizedFormat, values: ArrayLike<number>): Float64Array {
  const codes = Quantized.empty(device, format, values.length);
  const result = scope(() => {
    codes.set(tensor(device, values, 'f32'));
    const back = codes.values([values.length], 'f32');
    const { data } = back.readSync();
    back.dispose();
    return data;
  });
  codes.dispose();
  return result;
}

const weights = fc
  .tuple(fc.integer({ min: 1, max: 300 }), fc.integer(), fc.double({ min: 1e-6, max: 1e6, noNaN: true }))
  .map(([length, seed, scale]) => Float32Array.from({ length }, (_, i) => Math.sin(seed + i * i) * scale * (i % 7 === 0 ? 0.01 : 1)));

describe('the values of nf4', () => {
  it('are those of the paper: quantiles of the normal distribution, zero among them', () => {
    // Appendix E of arXiv:2305.14314.
    const published =
      '-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 -0.18477343022823334 -0.09105003625154495 0.0 ' +
      '0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0';
    expect([...NF4_VALUES]).toEqual(published.split(' ').map(Number));
  });
});

describe('codes', () => {
  // The largest magnitude of a block is exact; between neighbouring values lies at most such a part of it.
  const widest = { int8: 1 / 127, nf4: Math.max(...[...NF4_VALUES.slice(1)].map((value, i) => value - NF4_VALUES[i]!)) };

  it.each(['int8', 'nf4'] as const)(
    'of %s are off by half the gap between two values at most, and exact where a block is largest',
    (format) => {
      fc.assert(
        fc.property(weights, (values) => {
          const back = roundTrip(format, values);
          for (let block = 0; block < values.length; block += 64) {
            const own = values.subarray(block, block + 64);
            const largest = Math.max(...own.map(Math.abs));
            for (const [i, value] of own.entries()) {
              expect(Math.abs(back[block + i]! - value)).toBeLessThanOrEqual(largest * (widest[format] / 2) * (1 + 1e-6));
              if (format === 'int8' && Math.abs(value) === largest) expect(back[block + i]).toBe(value);
            }
          }
        }),
        { numRuns: 60 },
      );
    },
  );

  it.each(['int8', 'nf4'] as const)('of %s stand for values that have the same codes again', (format) => {
    fc.assert(
      fc.property(weights, (values) => {
        const once = roundTrip(format, values);
        expect(roundTrip(format, once)).toEqual(once);
      }),
      { numRuns: 60 },
    );
  });

  it('take a half or a byte for each element, and a scale for 64', () => {
    for (const [format, bytes] of [
      ['nf4', 500 + 4 * 16],
      ['int8', 1000 + 4 * 16],
    ] as const) {
      const codes = Quantized.empty(device, format, 1000, { kind: 'parameters' });
      expect(device.memory('parameters').live).toBe(bytes);
      codes.dispose();
    }
  });
});

class Block extends Module<[Tensor], Tensor> {
  override readonly isUnit = true;
  readonly norm = new LayerNorm(24);
  readonly layer = new Linear(24, 40);

  forward(x: Tensor): Tensor {
    return this.layer.call(this.norm.call(x).y);
  }
}

class Head extends Linear {
  override readonly isUnit = true;
}

class Net extends Module<[Tensor], Tensor> {
  readonly embed = new Embedding(5, 24);
  readonly block = new Block();
  readonly head = new Head(40, 5);

  forward(ids: Tensor): Tensor {
    return this.head.call(this.block.call(this.embed.call(ids)));
  }
}

describe('a store', () => {
  const use = (net: Net, ids = [0, 3]) => scope(() => noGrad(() => net.call(tensor(device, ids, 'i32')).readSync().data));

  it('keeps matrices of blocks as codes and all else as it is', () => {
    const net = new Net();
    quantizeWeights(net, 'nf4');
    const kept = [...namedParameters(net)].map(([name, { storage, requiresGrad }]) => [name, storage, requiresGrad]);
    expect(kept).toEqual([
      ['embed.weight', undefined, true],
      ['block.norm.weight', undefined, true],
      ['block.norm.bias', undefined, true],
      ['block.layer.weight', 'nf4', false],
      ['block.layer.bias', undefined, true],
      ['head.weight', undefined, true],
      ['head.bias', undefined, true],
    ]);
    const store = new LocalStore(net, device);
    const others = 4 * (5 * 24 + 24 + 24 + 40 + 5 * 40 + 5);
    expect(device.memory('parameters').live).toBe(others + (24 * 40) / 2 + 4 * 15);
    store.dispose();
  });

  it('computes with what codes stand for, which is there only while it is used', () => {
    const plain = new Net();
    const expected = new LocalStore(plain, device, { seed: 3 });
    const weight = plain.block.layer.weight.use();
    const rounded = roundTrip('int8', weight.readSync().data);
    device.backend.write(weight.handle, weight.byteOffset, new Uint8Array(Float32Array.from(rounded).buffer));
    const wanted = use(plain);
    expected.dispose();

    const net = new Net();
    quantizeWeights(net, 'int8');
    const store = new LocalStore(net, device, { seed: 3 });
    device.resetPeaks();
    const { live } = device.memory('parameters');
    expect(use(net)).toEqual(wanted);
    expect(device.memory('parameters').live).toBe(live);
    expect(device.memory('parameters').peak).toBe(live + 4 * 24 * 40);
    expect(() => store.stateDict()).toThrow('block.layer.weight is kept as int8 codes');
    store.dispose();
  });

  it('reads weights into codes, whatever they are stored in', async () => {
    const values = Float64Array.from({ length: 24 * 40 }, (_, i) => Math.fround(Math.sin(i)));
    const source: WeightSource = {
      has: (name) => name === 'block.layer.weight',
      dtypeOf: () => 'f32',
      async read(_, start, target) {
        const bytes = new Uint8Array(Float32Array.from(values.subarray(start, start + target.numel)).buffer);
        device.backend.write(target.handle, target.byteOffset, bytes);
      },
      close() {},
    };
    const net = new Net();
    quantizeWeights(net, 'nf4');
    const store = await LocalStore.load(net, device, { weights: source });
    const { weight } = net.block.layer;
    expect(weight.use().readSync().data).toEqual(roundTrip('nf4', values));
    weight.done();
    store.dispose();
  });

  it('refuses to keep what is to be trained as codes', () => {
    const net = new Net();
    quantizeWeights(net, 'nf4');
    net.block.layer.weight.requiresGrad = true;
    expect(() => new LocalStore(net, device)).toThrow('block.layer.weight is to be kept as nf4 codes and to be trained');
  });
});
