import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Permutation } from './permutation.js';

const entries = (length: number, seed: number, epoch = 0) => {
  const order = new Permutation(length, seed, epoch);
  return Array.from({ length }, (_, i) => order.at(i));
};

describe('Permutation', () => {
  it('visits every index exactly once, for any length', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3000 }), fc.nat(), fc.nat(100), (length, seed, epoch) => {
        const seen = entries(length, seed, epoch).sort((a, b) => a - b);
        expect(seen).toEqual(Array.from({ length }, (_, i) => i));
      }),
    );
  });

  it('is the same for the same seed and epoch, and another for any other', () => {
    expect(entries(1000, 7, 3)).toEqual(entries(1000, 7, 3));
    expect(entries(1000, 7, 3)).not.toEqual(entries(1000, 7, 4));
    expect(entries(1000, 7, 3)).not.toEqual(entries(1000, 8, 3));
  });

  it('puts an index anywhere with equal chance', () => {
    // 4800 permutations of 12: each of the 144 (position, entry) pairs is expected 400 times, with standard deviation 19.
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 4800; seed++) {
      entries(12, seed).forEach((entry, position) => {
        const pair = `${position},${entry}`;
        counts.set(pair, (counts.get(pair) ?? 0) + 1);
      });
    }
    expect(counts.size).toBe(144);
    const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - 400) ** 2 / 400, 0);
    // 121 degrees of freedom: mean 121, standard deviation 15.6.
    expect(chiSquare).toBeLessThan(121 + 5 * 15.6);
  });

  it('shuffles across the whole length, not within pieces', () => {
    const moved = entries(10000, 1).reduce((sum, entry, i) => sum + Math.abs(entry - i), 0) / 10000;
    // Two independent uniforms on [0, n) lie n / 3 apart on average.
    expect(moved).toBeGreaterThan(3200);
    expect(moved).toBeLessThan(3470);
  });

  it('enters an epoch of any length at any position', () => {
    const order = new Permutation(2 ** 40, 5, 0);
    expect(order.at(2 ** 40 - 1)).toBeLessThan(2 ** 40);
  });
});
