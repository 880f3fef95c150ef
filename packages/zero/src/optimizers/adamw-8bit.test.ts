import { CODE_BLOCK, type Communicator, Device, ReferenceBackend } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { ZeroStore } from '../store.js';
import { adam, adamw8bit } from './index.js';
import { expectClose, NAMES, type Name, Products, sizeOf, train, weightOf } from './test-support.js';

describe('AdamW in 8 bits', () => {
  const options = { lr: 0.01, weightDecay: 0.05, betas: [0.9, 0.99] as const, eps: 1e-8, decoupled: true, biasCorrection: true };
  const all = adamw8bit(() => true);
  const large = adamw8bit((_, { numel }) => numel > 100);

  /** Seven decades of equally spaced values, twice as many in each as in the one below (Dettmers, arXiv:1511.04561); 0 and 1 besides. */
  function values(signed: boolean): number[] {
    const positive: number[] = [];
    for (let decade = 1; decade <= 7; decade++) {
      const count = 2 ** (signed ? decade - 1 : decade);
      const width = (10 ** (decade - 7) * 0.9) / count;
      for (let i = 0; i < count; i++) positive.push(Math.fround(10 ** (decade - 8) + width * (i + 0.5)));
    }
    return [...(signed ? positive.map((value) => -value) : []), 0, ...positive, 1];
  }

  /** The nearest of all values, tried one by one, times the scale. */
  function nearest(x: number, scale: number, among: readonly number[]): number {
    const ratio = Math.fround(x / scale);
    return Math.fround(among.reduce((best, value) => (Math.abs(value - ratio) < Math.abs(best - ratio) ? value : best)) * scale);
  }

  it('has 256 values for each moment', () => {
    for (const signed of [true, false]) expect(new Set(values(signed)).size).toBe(256);
  });

  it('keeps each moment as the nearest of them, by blocks of a parameter', async () => {
    // Without memory the moments are the gradient and its square, exactly.
    const gradients = (name: Name) => Array.from(weightOf(name), (u) => Math.fround((u - 0.5) ** 5));
    await train(all, { ...options, betas: [0, 0] as const }, { steps: 1, gradients }, async ({ state }) => {
      const first = await state('exp_avg');
      const second = await state('exp_avg_sq');
      for (const name of NAMES) {
        const m = gradients(name).map((g) => 0.5 * g);
        const v = m.map((g) => g * g);
        // A second moment that is not zero stays so.
        const atLeast = (scale: number, value: number) => Math.max(value, Math.fround(values(false)[1]! * scale));
        const scale = (moments: number[], i: number) => {
          const start = i - (i % CODE_BLOCK);
          return Math.fround(Math.max(...moments.slice(start, start + CODE_BLOCK).map(Math.abs)));
        };
        expect(first[name]).toEqual(m.map((x, i) => nearest(x, scale(m, i), values(true))));
        expect(second[name]).toEqual(v.map((x, i) => atLeast(scale(v, i), nearest(x, scale(v, i), values(false)))));
      }
    });
  });

  it('never forgets that a second moment is not zero', async () => {
    // 1e-4 squared is nearer to zero than to the smallest of 256 values below 4 squared.
    const gradients = (name: Name) => Array.from({ length: sizeOf(name) }, (_, i) => (i === 0 ? 8 : 2e-4));
    await train(all, options, { steps: 1, gradients }, async ({ state }) => {
      expect(Math.min(...(await state('exp_avg_sq')).row!)).toBeGreaterThan(0);
    });
    // Where gradients vanish then, a first moment over a second one of zero would move weights by the first over eps.
    const vanishing = (name: Name, t: number) => gradients(name).map((g, i) => (t > 1 && i > 0 ? 0 : g));
    await train(all, { ...options, weightDecay: 0 }, { steps: 3, gradients: vanishing }, async ({ weights }) => {
      for (const [i, value] of weights.row.entries()) expect(Math.abs(value - weightOf('row')[i]!)).toBeLessThan(0.1);
    });
  });

  it('trains as AdamW does, up to what rounding moments to 8 bits costs, and equally where a parameter keeps 32', async () => {
    const exact = await train(adam, options, {}, async ({ weights }) => weights);
    await train(large, options, {}, async ({ weights }) => {
      for (const name of NAMES) expectClose(weights[name], exact[name], 5e-3);
      expect(weights.row).toEqual(exact.row);
      expect(weights.wide).toEqual(exact.wide);
      expect(weights.tall).not.toEqual(exact.tall);
    });
  });

  it('takes two bytes for each element and two scales for each block of them', async () => {
    await train(large, options, {}, async ({ device }) => {
      const blocks = Math.ceil(sizeOf('tall') / CODE_BLOCK);
      expect(device.memory('optimizer').live).toBe(2 * sizeOf('tall') + 2 * 4 * blocks + 2 * 4 * (sizeOf('wide') + sizeOf('row')));
    });
  });
});

describe('state of a rank', () => {
  it.each([0, 1, 2, 3])('is that of its slice, of the parameters that have it: rank %i of 4', (rank) => {
    const device = new Device(new ReferenceBackend());
    // Nothing is sent before training begins.
    const communicator = { rank, size: 4 } as Communicator;
    const optimizer = adamw8bit((_, { numel }) => numel > 100);
    const store = new ZeroStore(new Products(), { device, communicator, stage: 3, optimizer });
    // Parameters begin at 0, 256 and 768, of 45, 330 and 53 elements; slices are of 256.
    const bytes = [8 * 45, 2 * 256 + 8, 2 * 74 + 8, 8 * 53];
    expect(device.memory('optimizer').live).toBe(bytes[rank]);
    store.dispose();
    expect(device.describeLive()).toEqual([]);
  });
});
