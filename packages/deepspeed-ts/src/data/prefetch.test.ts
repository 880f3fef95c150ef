import { setTimeout as sleep } from 'node:timers/promises';
import type { AsyncDataset, IterableDataset, TrainingData } from '@deepspeed-ts/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DataError, DataLoader, openLoader, PrefetchLoader, ResumableSampler } from './index.js';
import type { OpenLoaderOptions } from './open-loader.js';

type Options = Partial<OpenLoaderOptions<number, number[]>>;

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Sample i is the number i, some time later. */
const later = (length: number): AsyncDataset<number> => ({ length, get: async (i) => i });

async function open(data: TrainingData<number>, options: Options = {}): Promise<PrefetchLoader<number[]>> {
  const loader = await openLoader<number, number[]>(data, { batchSize: 2, collate: (samples) => [...samples], prefetch: 2, ...options });
  expect(loader).toBeInstanceOf(PrefetchLoader);
  return loader as PrefetchLoader<number[]>;
}

async function draw(loader: PrefetchLoader<number[]>, count: number): Promise<number[][]> {
  const batches: number[][] = [];
  for (let i = 0; i < count; i++) batches.push(await loader.next());
  return batches;
}

describe('a sampler', () => {
  it('stands on its own: indices of one rank, to the end of an epoch, from the beginning of any', () => {
    const sampler = new ResumableSampler(10, { batchSize: 3, rank: 1, worldSize: 2, shuffle: false });
    expect([...sampler]).toEqual([
      [3, 4, 5],
      [8, 9],
    ]);
    expect(sampler.epoch).toBe(1);
    sampler.next();
    sampler.setEpoch(7);
    expect(sampler.stateDict()).toEqual({ epoch: 7, samples: 0, seed: 0, dataset_length: 10 });
    expect(sampler.next()).toEqual([3, 4, 5]);
  });
});

describe('loading ahead', () => {
  it('draws what a loader without it draws, and stands where it stands', async () => {
    const sizes = {
      length: fc.integer({ min: 6, max: 30 }),
      batchSize: fc.integer({ min: 1, max: 3 }),
      prefetch: fc.integer({ min: 1, max: 5 }),
    };
    const options = fc.record({
      ...sizes,
      rank: fc.integer({ min: 0, max: 1 }),
      dropLast: fc.boolean(),
      shuffle: fc.boolean(),
      count: fc.nat(25),
    });
    await fc.assert(
      fc.asyncProperty(options, async ({ length, prefetch, count, ...rest }) => {
        const straight = new DataLoader<number, number[]>({ length, get: (i) => i }, { ...rest, worldSize: 2, collate: (s) => [...s] });
        const ahead = await open(later(length), { ...rest, prefetch, worldSize: 2 });
        expect(await draw(ahead, count)).toEqual(range(count).map(() => straight.next()));
        expect(ahead.stateDict()).toEqual(straight.stateDict());
        const resumed = await open(later(length), { ...rest, prefetch, worldSize: 2 });
        // From a state with batches that were loaded and never drawn.
        resumed.loadStateDict(JSON.parse(JSON.stringify(ahead.stateDict())));
        expect(await draw(resumed, 3)).toEqual(range(3).map(() => straight.next()));
        for (const loader of [ahead, resumed]) await loader.dispose();
      }),
      { numRuns: 50 },
    );
  });

  it('is bounded: no more batches are made than were asked for ahead', async () => {
    const got: number[] = [];
    const data = { length: 100, get: async (i: number) => got.push(i) };
    const loader = await open(data, { batchSize: 1, prefetch: 3, shuffle: false });
    await sleep(20);
    expect(got).toEqual([]);
    await loader.next();
    await sleep(20);
    expect(got).toEqual([0, 1, 2, 3]);
    await loader.dispose();
  });

  it('goes on in order when batches are asked for together', async () => {
    const data = { length: 8, get: (i: number) => sleep(8 - i, i) };
    const loader = await open(data, { shuffle: false });
    expect(await Promise.all(range(4).map(() => loader.next()))).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
      [6, 7],
    ]);
    await loader.dispose();
  });

  it('names the sample that could not be had, and stays before it', async () => {
    let broken = true;
    const get = async (i: number) => {
      if (i === 3 && broken) throw new Error('no such page');
      return i;
    };
    const loader = await open({ length: 8, get }, { shuffle: false });
    expect(await loader.next()).toEqual([0, 1]);
    const error = await loader.next().catch((thrown: unknown) => thrown as DataError);
    expect(error).toBeInstanceOf(DataError);
    expect(error).toMatchObject({ code: 'ERR_DATA', index: 3, message: 'sample 3: no such page', cause: new Error('no such page') });
    expect(loader.stateDict().samples).toBe(2);
    broken = false;
    expect(await draw(loader, 3)).toEqual([
      [2, 3],
      [4, 5],
      [6, 7],
    ]);
    await loader.dispose();
  });

  it('is entered again where a loop was left, and can go to another epoch or batch size', async () => {
    const loader = await open(later(8), { shuffle: false });
    for await (const batch of loader) {
      expect(batch).toEqual([0, 1]);
      break;
    }
    const rest: number[][] = [];
    for await (const batch of loader) rest.push(batch);
    expect(rest).toEqual([
      [2, 3],
      [4, 5],
      [6, 7],
    ]);
    await loader.next();
    loader.setBatchSize(3);
    expect(await loader.next()).toEqual([2, 3, 4]);
    loader.setEpoch(5);
    expect([await loader.next(), loader.epoch]).toEqual([[0, 1, 2], 5]);
    await loader.dispose();
    await expect(loader.next()).rejects.toThrow('the loader has been disposed');
  });

  it('is asked for where samples are promises, and refused where it means nothing', async () => {
    const loader = await openLoader({ length: 4, get: async () => 1 } as never, { batchSize: 2 });
    expect(() => loader.next()).toThrow(/sample \d is a promise; give `prefetch`/);
    await expect(open(later(4), { prefetch: 0 })).rejects.toThrow('prefetch: expected an integer >= 1, got 0');
  });
});

describe('a stream', () => {
  /** Items 0 to length - 1 of an epoch, plus a hundred for each; counts what is loaded. */
  const numbers = (length: number, loaded: number[] = []): IterableDataset<number> => ({
    async *stream(epoch, start) {
      for (let i = start; i < length; i++) yield 100 * epoch + i;
    },
    load: (item) => {
      loaded.push(item);
      return item;
    },
  });
  const stream = (length: number, options: Options = {}, loaded?: number[]) => open(numbers(length, loaded), options);

  it('is dealt to ranks like a dataset in one order, epoch after epoch', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({ length: fc.integer({ min: 4, max: 20 }), rank: fc.integer({ min: 0, max: 1 }), dropLast: fc.boolean() }),
        fc.nat(12),
        async ({ length, ...options }, count) => {
          const straight = new DataLoader<number, number[]>(
            { length, get: (i) => i },
            { ...options, batchSize: 2, worldSize: 2, shuffle: false, collate: (s) => [...s] },
          );
          const loader = await stream(length, { ...options, worldSize: 2 });
          // The last places of an epoch, where items don't divide, hold its first samples in a dataset, and in a stream those at hand.
          const expected = range(count).map(() => {
            const { epoch, samples } = straight.stateDict();
            return straight.next().map((i) => 100 * epoch + (i < samples ? samples + i : i));
          });
          expect(await draw(loader, count)).toEqual(expected);
          expect(loader.stateDict()).toEqual({ ...straight.stateDict(), dataset_length: null });
          await loader.dispose();
        },
      ),
      { numRuns: 50 },
    );
  });

  it('resumes at its item, also on another number of ranks, and each rank loads its own only', async () => {
    const first = await stream(40, { worldSize: 2 });
    await draw(first, 3);
    const state = JSON.parse(JSON.stringify(first.stateDict()));
    expect(state).toEqual({ epoch: 0, samples: 12, seed: 0, dataset_length: null });
    const loaded: number[] = [];
    const third = await stream(40, { rank: 2, worldSize: 4 }, loaded);
    third.loadStateDict(state);
    expect(await draw(third, 2)).toEqual([
      [16, 17],
      [24, 25],
    ]);
    expect(loaded.every((item) => (item - 12) % 8 === 4 || (item - 12) % 8 === 5)).toBe(true);
    for (const loader of [first, third]) await loader.dispose();
  });

  it('closes what it reads when it is disposed, and refuses to be empty, too short, or a dataset', async () => {
    let closed = 0;
    const endless: IterableDataset<number> = {
      *stream() {
        try {
          for (let i = 0; ; i++) yield i;
        } finally {
          closed++;
        }
      },
    };
    const loader = await open(endless);
    await loader.next();
    await loader.dispose();
    expect(closed).toBe(1);
    await expect((await stream(0)).next()).rejects.toThrow('the stream of epoch 0 has 0 samples, expected at least 1');
    await expect((await stream(3, { worldSize: 2, dropLast: true })).next()).rejects.toThrow(
      'the stream of epoch 0 has 3 samples, expected at least 4',
    );
    const state = (await open(later(8))).stateDict();
    const other = await stream(8);
    expect(() => other.loadStateDict(state)).toThrow('cursor: expected one for a stream, got one for a dataset of 8 samples');
  });
});
