import { init, Parameter } from '@deepspeed-ts/core';
import { describe, expect, it } from 'vitest';
import { UnitLayout } from './layout.js';

const unit = (...sizes: number[]) => ({
  name: 'unit',
  parameters: new Map(sizes.map((size, i) => [`p${i}`, new Parameter([size], init.constant(0))])),
});

describe('the layout of a unit', () => {
  it.each([
    { sizes: [53], ranks: 1, slice: 64 },
    { sizes: [53], ranks: 4, slice: 32 },
    { sizes: [32, 32, 64], ranks: 4, slice: 32 },
    { sizes: [129], ranks: 4, slice: 64 },
    { sizes: [1], ranks: 64, slice: 32 },
  ])('gives each of $ranks ranks an equal slice of $sizes', ({ sizes, ranks, slice }) => {
    const layout = new UnitLayout(unit(...sizes), ranks);
    expect(layout).toMatchObject({ slice, padded: slice * ranks, numel: sizes.reduce((a, b) => a + b) });
    // Slices follow each other without gaps, and cover everything.
    for (let rank = 0; rank < ranks; rank++) expect(layout.sliceOf(rank)).toEqual({ start: rank * slice, end: (rank + 1) * slice });
    expect(layout.padded).toBeGreaterThanOrEqual(layout.numel);
    expect(layout.padded - layout.numel).toBeLessThan(32 * ranks);
    expect(slice % 32).toBe(0);
  });

  it('puts parameters one after the other', () => {
    const { parameters, name } = unit(53, 7, 40);
    const layout = new UnitLayout({ name, parameters }, 2);
    expect(layout.placements.map(({ name, offset, numel }) => [name, offset, numel])).toEqual([
      ['p0', 0, 53],
      ['p1', 53, 7],
      ['p2', 60, 40],
    ]);
    expect(layout.placementOf(parameters.get('p1')!).offset).toBe(53);
  });

  it('keeps blocks of an optimizer together, and knows its gaps', () => {
    const layout = new UnitLayout(unit(53, 300, 40), 2, 256);
    expect(layout).toMatchObject({ numel: 393, slice: 512, padded: 1024 });
    expect(layout.placements.map(({ offset }) => offset)).toEqual([0, 256, 768]);
    expect([...layout.gaps()]).toEqual([
      { start: 53, end: 256 },
      { start: 556, end: 768 },
      { start: 808, end: 1024 },
    ]);
  });

  it('cuts parameters where slices meet, and leaves the padding out', () => {
    const layout = new UnitLayout(unit(53, 7, 40), 2);
    const parts = (rank: number) => layout.segments(layout.sliceOf(rank), ({ name }) => name);
    expect(parts(0)).toEqual([
      { key: 'p0', start: 0, end: 53 },
      { key: 'p1', start: 53, end: 60 },
      { key: 'p2', start: 60, end: 64 },
    ]);
    expect(parts(1)).toEqual([{ key: 'p2', start: 64, end: 100 }]);
  });

  it('merges neighbours of one key, and leaves out what has none', () => {
    const layout = new UnitLayout(unit(10, 10, 10, 10), 1);
    const keys: Record<string, string> = { p0: 'a', p1: 'a', p3: 'a' };
    expect(layout.segments(layout.whole, ({ name }) => keys[name])).toEqual([
      { key: 'a', start: 0, end: 20 },
      { key: 'a', start: 30, end: 40 },
    ]);
  });
});
