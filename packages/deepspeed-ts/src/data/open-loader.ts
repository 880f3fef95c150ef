import type { Dataset, ThreadedDataset, TrainingData } from '@deepspeed-ts/core';
import { type Stacked, stack } from './collate.js';
import { DataError } from './data-error.js';
import { type ItemSource, SamplerSource, StreamSource } from './item-source.js';
import { DataLoader, type DataLoaderOptions } from './loader.js';
import { PrefetchLoader } from './prefetch-loader.js';
import { type Produce, producer } from './produce.js';
import { DataWorkers } from './workers.js';

export interface OpenLoaderOptions<Sample, Batch> extends DataLoaderOptions<Sample, Batch> {
  /** Micro-batches that are loaded ahead of training. Default: none for a dataset in memory, else 2 for each thread. */
  readonly prefetch?: number;
}

/** A loader for data of any kind. Whoever has a {@link PrefetchLoader} disposes it. */
export async function openLoader<Sample, Batch = Stacked<Sample>>(
  data: TrainingData<Sample>,
  { prefetch, ...options }: OpenLoaderOptions<Sample, Batch>,
): Promise<DataLoader<Sample, Batch> | PrefetchLoader<Batch>> {
  if ('module' in data) return inThreads(data, prefetch, options);
  const collate = options.collate ?? (stack as unknown as (samples: readonly Sample[]) => Batch);
  if ('stream' in data) {
    const load = (item: unknown) => (data.load ? data.load(item) : (item as Sample));
    return loaderOf(new StreamSource(data, { ...options, shuffle: false }), producer(load, collate), { depth: prefetch ?? 2 });
  }
  if (prefetch === undefined) return new DataLoader(data as Dataset<Sample>, options);
  const get = (index: number) => data.get(index);
  return loaderOf(new SamplerSource(data.length, options), producer(get, collate), { depth: prefetch });
}

async function inThreads<Sample, Batch>(
  data: ThreadedDataset,
  prefetch = 2 * data.workers,
  { collate, ...options }: DataLoaderOptions<Sample, Batch>,
): Promise<PrefetchLoader<Batch>> {
  if (collate)
    throw new DataError('collate: a function can not be sent to a thread; export it as `collate` from the module of the dataset');
  const workers = await DataWorkers.open(data);
  try {
    const produce = (items: readonly number[]) => workers.produce(items) as Promise<Batch>;
    return loaderOf(new SamplerSource(workers.length, options), produce, { depth: prefetch, close: () => workers.close() });
  } catch (error) {
    await workers.close();
    throw error;
  }
}

function loaderOf<Item, Batch>(
  source: ItemSource<Item>,
  produce: Produce<Item, Batch>,
  options: { depth: number; close?: () => Promise<void> },
): PrefetchLoader<Batch> {
  return new PrefetchLoader(source as ItemSource<never>, produce as Produce<never, Batch>, options);
}
