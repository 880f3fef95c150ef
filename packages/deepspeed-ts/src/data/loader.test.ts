import type { Dataset, HostArray } from '@deepspeed-ts/core';
import fc from 'fast-check';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { DataError, DataLoader, type DataLoaderOptions, stack } from './index.js';

/** Sample i is the number i. */
const numbers = (length: number): Dataset<number> => ({ length, get: (i) => i });

const loader = (length: number, options: Partial<DataLoaderOptions<number, number[]>> = {}) =>
  new DataLoader(numbers(length), { batchSize: 2, collate: (samples) => [...samples], ...options });

/** What all ranks together draw in one global micro-batch. */
const together = (loaders: readonly DataLoader<number, number[]>[]) => loaders.flatMap((one) => one.next());

const ranksOf = (length: number, worldSize: number, options: Partial<DataLoaderOptions<number, number[]>> = {}) =>
  Array.from({ length: worldSize }, (_, rank) => loader(length, { rank, worldSize, ...options }));

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const sorted = (values: readonly number[]) => [...values].sort((a, b) => a - b);

describe('DataLoader', () => {
  it('gives every sample to exactly one rank in an epoch that divides evenly', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 6 }),
        (worldSize, batchSize, batches) => {
          const ranks = ranksOf(worldSize * batchSize * batches, worldSize, { batchSize });
          const drawn = range(batches).flatMap(() => together(ranks));
          expect(sorted(drawn)).toEqual(range(worldSize * batchSize * batches));
          expect(ranks.map((one) => one.epoch)).toEqual(ranks.map(() => 1));
        },
      ),
    );
  });

  it('draws the samples of a step from train_batch_size alone, however it is split', () => {
    const split = (worldSize: number, batchSize: number) => {
      const ranks = ranksOf(96, worldSize, { batchSize, seed: 3 });
      return sorted(range(12 / (worldSize * batchSize)).flatMap(() => together(ranks)));
    };
    expect(split(2, 6)).toEqual(split(1, 12));
    expect(split(2, 2)).toEqual(split(1, 12));
    expect(split(4, 3)).toEqual(split(1, 12));
  });

  it('keeps the given order without shuffling, and takes another each epoch with it', () => {
    expect([...loader(4, { shuffle: false })]).toEqual([
      [0, 1],
      [2, 3],
    ]);
    const shuffled = loader(100);
    const [first, second] = [[...shuffled].flat(), [...shuffled].flat()];
    expect(sorted(first)).toEqual(sorted(second));
    expect(first).not.toEqual(second);
  });

  it('makes of the rest of an epoch equal micro-batches on all ranks, or leaves it out', () => {
    const batches = (dropLast: boolean) => ranksOf(11, 2, { batchSize: 4, shuffle: false, dropLast }).map((one) => [...one]);
    expect(batches(true)).toEqual([[[0, 1, 2, 3]], [[4, 5, 6, 7]]]);
    // 8, 9 and 10 are left for two ranks: two each, the fourth place goes to the first sample again.
    expect(batches(false)).toEqual([
      [
        [0, 1, 2, 3],
        [8, 9],
      ],
      [
        [4, 5, 6, 7],
        [10, 0],
      ],
    ]);
    expect(loader(11, { batchSize: 4, dropLast: true }).length).toBe(2);
    expect(loader(11, { batchSize: 4 }).length).toBe(3);
  });

  it('resumes in the middle of an epoch with exactly the batches that were to come', () => {
    fc.assert(
      fc.property(fc.integer({ min: 4, max: 60 }), fc.integer({ min: 0, max: 40 }), fc.boolean(), (length, steps, dropLast) => {
        const straight = loader(length, { dropLast, seed: 9 });
        for (let i = 0; i < steps; i++) straight.next();
        const resumed = loader(length, { dropLast, seed: 9 });
        resumed.loadStateDict(JSON.parse(JSON.stringify(straight.stateDict())));
        for (let i = 0; i < 20; i++) expect(resumed.next()).toEqual(straight.next());
      }),
    );
  });

  it('resumes on another number of ranks without repeating or missing a sample', () => {
    const two = ranksOf(48, 2, { batchSize: 3 });
    const before = range(4).flatMap(() => together(two));
    const three = ranksOf(48, 3, { batchSize: 4 });
    for (const one of three) one.loadStateDict(two[0]!.stateDict());
    const after = range(2).flatMap(() => together(three));
    expect(sorted([...before, ...after])).toEqual(range(48));
    expect(three[0]!.epoch).toBe(1);
  });

  it('goes on where a loop was left', () => {
    const source = loader(6, { shuffle: false });
    for (const batch of source) {
      expect(batch).toEqual([0, 1]);
      break;
    }
    expect([...source]).toEqual([
      [2, 3],
      [4, 5],
    ]);
  });

  it('refuses an empty dataset, one smaller than a global micro-batch, and nonsense', () => {
    expect(() => loader(0)).toThrow('the dataset is empty');
    expect(() => loader(7, { batchSize: 4, worldSize: 2 })).toThrow(
      'the dataset has 7 samples, fewer than one micro-batch on every rank: 4 samples * 2 ranks = 8; give more data, fewer ranks or a smaller micro-batch',
    );
    expect(() => loader(8, { batchSize: 0 })).toThrow('batchSize: expected an integer >= 1, got 0');
    expect(() => loader(8, { rank: 2, worldSize: 2 })).toThrow('rank: expected 0 to 1, got 2');
  });

  it('refuses the cursor of other data', () => {
    const state = loader(10, { seed: 1 }).stateDict();
    expect(() => loader(12, { seed: 1 }).loadStateDict(state)).toThrow('expected one for a dataset of 12 samples, got one for 10');
    expect(() => loader(10, { seed: 2 }).loadStateDict(state)).toThrow('expected one for seed 2, got one for seed 1');
    expect(() => loader(10, { seed: 1 }).loadStateDict({ ...state, samples: 11 })).toThrow(DataError);
  });
});

describe('stack', () => {
  it('stacks rows, scalars and records along a new first axis', () => {
    expect(stack([Int32Array.of(1, 2, 3), Int32Array.of(4, 5, 6)])).toEqual({ data: Int32Array.of(1, 2, 3, 4, 5, 6), shape: [2, 3] });
    expect(stack([7, 8])).toEqual({ data: Int32Array.of(7, 8), shape: [2] });
    const batch = stack([
      { ids: [1, 2], weight: Float32Array.of(0.5) },
      { ids: [3, 4], weight: Float32Array.of(0.25) },
    ]);
    expectTypeOf(batch.ids).toEqualTypeOf<HostArray>();
    expect(batch).toEqual({
      ids: { data: Int32Array.of(1, 2, 3, 4), shape: [2, 2] },
      weight: { data: Float32Array.of(0.5, 0.25), shape: [2, 1] },
    });
    const image = { data: new Float32Array(6), shape: [2, 3] };
    expect(stack([image, image]).shape).toEqual([2, 2, 3]);
  });

  it('refuses samples that do not fit together', () => {
    expect(() => stack([Int32Array.of(1, 2), Int32Array.of(1)])).toThrow(
      'samples differ within a batch: sample 0 is Int32Array [2], sample 1 is Int32Array [1]; pad or cut them to one shape',
    );
    expect(() => stack([{ a: 1 }, { b: 1 }])).toThrow('samples of one batch have different fields: [a] and [b]');
    expect(() => stack([[0.5]])).toThrow('samples: 0.5 is not a 32-bit integer; give real numbers as a Float32Array');
  });
});
