import { describe, expect, it } from 'vitest';
import { normals, philox, streamOf, uniforms } from './philox.js';

const words = (text: string): number[] => text.split(' ').map((word) => Number.parseInt(word, 16));

// Random123's kat_vectors for philox4x32 with 10 rounds: counter, key, result.
const known = [
  ['00000000 00000000 00000000 00000000', '00000000 00000000', '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
  ['ffffffff ffffffff ffffffff ffffffff', 'ffffffff ffffffff', '408f276d 41c83b0e a20bc7c6 6d5451fd'],
  ['243f6a88 85a308d3 13198a2e 03707344', 'a4093822 299f31d0', 'd16cfe09 94fdcceb 5001e420 24126ea1'],
] as const;

describe('philox', () => {
  it.each(known)('gives the published words for counter %s, key %s', (counter, key, expected) => {
    const [blockLow, blockHigh, step, stream] = words(counter) as [number, number, number, number];
    const [seedLow, seedHigh] = words(key) as [number, number];
    const out = new Uint32Array(4);
    philox(out, seedLow, seedHigh, blockLow, blockHigh, step, stream);
    expect([...out]).toEqual(words(expected));
  });
});

describe('uniforms and normals', () => {
  const key = { seed: 2 ** 40 + 7, step: 3, stream: 5 };

  it('take the top 24 bits of the word at their index', () => {
    const out = new Uint32Array(4);
    philox(out, 7, 2 ** 8, 2, 0, 3, 5);
    expect([...uniforms(key, 8, 4)]).toEqual([...out].map((word) => (word >>> 8) / 2 ** 24));
  });

  it.each([
    [0, 37],
    [1, 5],
    [2 ** 34 + 3, 9],
  ])('are the same whatever slice they are drawn in, from index %i', (start, count) => {
    for (const draw of [uniforms, normals]) {
      const one = Array.from({ length: count }, (_, i) => draw(key, start + i, 1)[0]);
      expect([...draw(key, start, count)]).toEqual(one);
    }
  });

  it('differ by seed, step and stream', () => {
    const first = (change: object) => uniforms({ ...key, ...change }, 0, 1)[0];
    const all = [first({}), first({ seed: 7 }), first({ step: 4 }), first({ stream: 6 }), first({ seed: 2 ** 41 + 7 })];
    expect(new Set(all).size).toBe(all.length);
  });

  it('have the moments of their distributions', () => {
    const n = 100_000;
    const moment = (values: Float64Array, power: number) => values.reduce((sum, x) => sum + x ** power, 0) / n;
    const [u, z] = [uniforms(key, 0, n), normals(key, 0, n)];
    // Within five standard errors.
    const within = 5 / Math.sqrt(n);
    expect(Math.abs(moment(u, 1) - 1 / 2)).toBeLessThan(within * Math.sqrt(1 / 12));
    expect(Math.abs(moment(u, 2) - 1 / 3)).toBeLessThan(within * Math.sqrt(4 / 45));
    expect(Math.abs(moment(z, 1))).toBeLessThan(within);
    expect(Math.abs(moment(z, 2) - 1)).toBeLessThan(within * Math.sqrt(2));
    expect(Math.abs(moment(z, 4) - 3)).toBeLessThan(within * Math.sqrt(96));
    expect(u.every((x) => x >= 0 && x < 1)).toBe(true);
  });

  it('number streams by FNV-1a of a name', () => {
    expect(streamOf('')).toBe(0x811c9dc5);
    expect(streamOf('a')).toBe(0xe40c292c);
    expect(streamOf('foobar')).toBe(0xbf9cf968);
  });
});
