import { describe, expect, it } from 'vitest';
import { ReferenceBackend } from '../backend/reference-backend.js';
import type { DType, FloatDType } from '../dtype.js';
import { empty, write } from '../tensor/create.js';
import { Device } from '../tensor/device.js';
import { decode, encode, hostTensor } from '../tensor/host.js';
import type { Tensor } from '../tensor/tensor.js';
import { init } from './init.js';
import { LocalStore } from './local-store.js';
import { Module } from './module.js';
import { Parameter } from './parameter.js';
import { readWeights } from './read-weights.js';
import type { WeightSource } from './weight-source.js';

/** Elements of parameters are their index over eight. */
class Counting implements WeightSource {
  readonly reads: { name: string; start: number; count: number }[] = [];
  under = 0;
  most = 0;
  closed = 0;

  constructor(
    readonly names: readonly string[],
    readonly dtype: FloatDType,
  ) {}

  has(name: string): boolean {
    return this.names.includes(name);
  }

  dtypeOf(): DType {
    return this.dtype;
  }

  async read(name: string, start: number, target: Tensor): Promise<void> {
    this.reads.push({ name, start, count: target.numel });
    this.most = Math.max(this.most, ++this.under);
    await new Promise(setImmediate);
    this.under--;
    if (name === 'broken') throw new Error('the disk is gone');
    expect(target.dtype).toBe(this.dtype);
    write(
      target,
      hostTensor(
        target.shape,
        this.dtype,
        Array.from({ length: target.numel }, (_, i) => (start + i) / 8),
      ),
    );
  }

  close(): void {
    this.closed++;
  }
}

const counted = (start: number, count: number, dtype: FloatDType) => {
  const values = hostTensor(
    [count],
    dtype,
    Array.from({ length: count }, (_, i) => (start + i) / 8),
  );
  return decode(encode(values), [count], dtype).data;
};

describe('readWeights', () => {
  it.each([
    ['f32', 'f32'],
    ['bf16', 'f32'],
    ['f16', 'bf16'],
    ['f32', 'bf16'],
  ] as const)('fills memory with elements as they are stored, or cast: %s to %s', async (stored, wanted) => {
    const device = new Device(new ReferenceBackend());
    const source = new Counting(['a', 'b'], stored);
    const a = empty(device, [3, 7], wanted);
    const b = empty(device, [50], wanted);
    await readWeights(source, [
      { name: 'a', start: 2, target: a },
      { name: 'b', start: 0, target: b },
    ]);
    expect(a.readSync().data).toEqual(counted(2, 21, wanted));
    expect(b.readSync().data).toEqual(counted(0, 50, wanted));
    expect(source.most).toBeGreaterThan(1);
    const read = source.reads.filter(({ name }) => name === 'b').map(({ start, count }) => [start, count]);
    expect(read.reduce((sum, [, count]) => sum + count!, 0)).toBe(50);
    a.dispose();
    b.dispose();
    expect(device.describeLive()).toEqual([]);
    // Beside the targets no more than the largest of them is.
    expect(device.memory('data').peak).toBeLessThanOrEqual(stored === wanted ? 0 : 52 * 4);
  });

  it('waits for all reads when one fails, and gives back what it took', async () => {
    const device = new Device(new ReferenceBackend());
    const source = new Counting(['a', 'broken'], 'bf16');
    const parts = ['a', 'broken', 'a'].map((name) => ({ name, start: 0, target: empty(device, [64], 'f32') }));
    await expect(readWeights(source, parts)).rejects.toThrow('the disk is gone');
    expect(source.under).toBe(0);
    for (const { target } of parts) target.dispose();
    expect(device.describeLive()).toEqual([]);
  });
});

class Pair extends Module<[], void> {
  readonly a = new Parameter([5], init.constant(3));
  readonly b = new Parameter([2, 2], init.constant(4));
  forward(): void {}
}

describe('a LocalStore', () => {
  it("takes the model's weights, and initialises what they lack", async () => {
    const device = new Device(new ReferenceBackend());
    const model = new Pair();
    const source = new Counting(['b'], 'f16');
    model.weights = source;
    for (let again = 1; again <= 2; again++) {
      const store = await LocalStore.load(model, device, { dtype: 'bf16' });
      expect([...store.use(model.a).readSync().data]).toEqual([3, 3, 3, 3, 3]);
      expect([...store.use(model.b).readSync().data]).toEqual([0, 0.125, 0.25, 0.375]);
      expect(source.closed).toBe(again);
      store.dispose();
    }
    expect(device.describeLive()).toEqual([]);
  });

  it('leaves nothing behind where they can not be read', async () => {
    const device = new Device(new ReferenceBackend());
    class Broken extends Module<[], void> {
      readonly broken = new Parameter([5], init.constant(3));
      forward(): void {}
    }
    const model = new Broken();
    const source = new Counting(['broken'], 'f32');
    await expect(LocalStore.load(model, device, { weights: source })).rejects.toThrow('the disk is gone');
    expect(source.closed).toBe(1);
    expect(device.describeLive()).toEqual([]);
    new LocalStore(model, device).dispose();
  });
});
