import { sampleError } from './data-error.js';

/** Makes a batch of items: indices of samples, or what a stream gave. */
export type Produce<Item, Batch> = (items: readonly Item[]) => Promise<Batch>;

/** Loads the samples of a batch side by side, and collates them. @throws DataError naming the first sample that could not be had */
export function producer<Item, Sample, Batch>(
  load: (item: Item) => Sample | Promise<Sample>,
  collate: (samples: readonly Sample[]) => Batch | Promise<Batch>,
): Produce<Item, Batch> {
  return async (items) => {
    // Not within the call that asked: what loads synchronously would be waited for.
    await null;
    const loaded = await Promise.allSettled(items.map(async (item) => load(item)));
    const samples = loaded.map((result, i) => {
      if (result.status === 'fulfilled') return result.value;
      throw typeof items[i] === 'number' ? sampleError(items[i], result.reason) : result.reason;
    });
    return collate(samples);
  };
}
