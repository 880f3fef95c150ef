import { readdirSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type DataError, DataLoader, openLoader, type PrefetchLoader, WorkerDataset } from './index.js';

const module = (name: string) => new URL(`./test-data/${name}.mjs`, import.meta.url);
const squares = (args: object, workers = 1) => new WorkerDataset(module('squares'), { workers, args });

type Batch = { ids: { data: Int32Array; shape: number[] } };
const open = async (data: WorkerDataset, options = {}) =>
  (await openLoader<never, Batch>(data, { batchSize: 3, shuffle: false, ...options })) as PrefetchLoader<Batch>;

describe('a dataset in threads', () => {
  it('gives the batches of the same dataset in memory, in its order, and is resumed exactly', async () => {
    const memory = new DataLoader({ length: 20, get: (i) => ({ ids: Int32Array.of(i, i * i) }) }, { batchSize: 3, seed: 5 });
    const expected = Array.from({ length: 10 }, () => memory.next());
    // One sample takes longer: its batch must not come later.
    const loader = await open(squares({ length: 20, slowSample: 4 }, 2), { shuffle: true, seed: 5, prefetch: 5 });
    expect(loader.length).toBe(7);
    for (const batch of expected) expect(await loader.next()).toEqual(batch);
    expect(loader.stateDict()).toEqual(memory.stateDict());
    // With batches loaded that nobody has drawn.
    loader.loadStateDict({ ...memory.stateDict(), epoch: 0, samples: 6 });
    for (const batch of expected.slice(2)) expect(await loader.next()).toEqual(batch);
    await loader.dispose();
  });

  it('may collate by itself; arrays that it goes on using are copied', async () => {
    const loader = await open(new WorkerDataset(module('collated')), { batchSize: 1 });
    for (let i = 0; i < 3; i++) expect(await loader.next()).toEqual({ values: { data: Float32Array.of(i, i + 0.5), shape: [1, 2] } });
    await loader.dispose();
  });

  it('tells which sample could not be had, where its code threw, and that a thread has ended', async () => {
    const bad = await open(squares({ length: 20, badSample: 4 }));
    await bad.next();
    const error = await bad.next().catch((thrown: unknown) => thrown as DataError);
    expect(error).toMatchObject({ code: 'ERR_DATA', index: 4, message: 'sample 4: this one can not be read' });
    expect(((error as DataError).cause as Error).stack).toMatch(/squares\.mjs:\d+/);
    await bad.dispose();
    const fatal = await open(squares({ length: 20, fatalSample: 0 }));
    await expect(fatal.next()).rejects.toThrow('a thread that loads data has ended, with code 3');
    await fatal.dispose();
  });

  it('refuses a module without a dataset, one that does not load, and a function that can not be sent', async () => {
    await expect(open(new WorkerDataset(new URL('./collate.ts', import.meta.url)))).rejects.toThrow(
      /expected a default export with length and get\(index\)/,
    );
    await expect(open(new WorkerDataset(module('nothing')))).rejects.toThrow(/nothing\.mjs/);
    await expect(open(squares({ length: 9 }), { collate: () => ({}) })).rejects.toThrow(/collate: a function can not be sent to a thread/);
    expect(() => squares({}, 0)).toThrow('workers: expected an integer >= 1, got 0');
    await expect(open(squares({ length: 2 }))).rejects.toThrow(/the dataset has 2 samples, fewer than one micro-batch/);
  });

  it.skipIf(process.platform !== 'linux')('leaves no thread behind when it is disposed, and leaves the event loop free', async () => {
    const threads = () => readdirSync('/proc/self/task').length;
    await (await open(squares({ length: 20 }))).dispose();
    const before = threads();
    const loader = await open(squares({ length: 20, slowSample: 0 }, 2));
    expect(threads()).toBeGreaterThan(before);
    let turns = 0;
    let waiting = true;
    const batch = loader.next().finally(() => (waiting = false));
    while (waiting) {
      await setImmediate();
      turns++;
    }
    await batch;
    expect(turns).toBeGreaterThan(1);
    await loader.dispose();
    expect(threads()).toBeLessThanOrEqual(before);
  });
});
