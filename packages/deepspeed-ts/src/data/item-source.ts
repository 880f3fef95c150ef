import type { IterableDataset } from '@deepspeed-ts/core';
import { DataError } from './data-error.js';
import { type DataLoaderState, ResumableSampler, type SamplerOptions } from './sampler.js';

/** The items of one micro-batch of this rank, and where the data stands once it is taken. */
export interface Planned<Item> {
  readonly items: readonly Item[];
  readonly after: DataLoaderState;
}

/** What a loader takes its micro-batches from, one after the other. Its options are fixed: another place or size is another source. */
export interface ItemSource<Item> {
  /** Micro-batches of one epoch, where that is known. */
  readonly length: number | undefined;
  readonly batchSize: number;
  /** Where it stands after the micro-batches that were asked for and given. */
  readonly state: DataLoaderState;
  next(): Promise<Planned<Item>>;
  /** The same data from another place on. @throws DataError where that is a place of other data */
  at(state: DataLoaderState, batchSize?: number): ItemSource<Item>;
  /** Gives back what is open. */
  close(): Promise<void>;
}

/** Indices of samples. */
export class SamplerSource implements ItemSource<number> {
  readonly #sampler: ResumableSampler;

  constructor(
    private readonly datasetLength: number,
    private readonly options: SamplerOptions,
  ) {
    this.#sampler = new ResumableSampler(datasetLength, options);
  }

  get length(): number {
    return this.#sampler.length;
  }

  get batchSize(): number {
    return this.#sampler.batchSize;
  }

  get state(): DataLoaderState {
    return this.#sampler.stateDict();
  }

  async next(): Promise<Planned<number>> {
    const items = this.#sampler.next();
    return { items, after: this.state };
  }

  at(state: DataLoaderState, batchSize = this.batchSize): SamplerSource {
    const source = new SamplerSource(this.datasetLength, { ...this.options, batchSize });
    source.#sampler.loadStateDict(state);
    return source;
  }

  async close(): Promise<void> {}
}

/**
 * Deals a stream to ranks: of the next batchSize * worldSize items rank r takes the r-th part, as a sampler does. Whether an epoch ends
 * shows when its next item is asked for, so it reads ahead.
 */
export class StreamSource<Item> implements ItemSource<Item> {
  readonly length = undefined;
  readonly batchSize: number;
  #epoch = 0;
  #samples = 0;
  #iterator: AsyncIterator<Item> | Iterator<Item> | undefined;
  #ahead: Item[] = [];

  constructor(
    private readonly data: Pick<IterableDataset<Item, unknown>, 'stream'>,
    private readonly options: SamplerOptions,
  ) {
    const { batchSize, rank = 0, worldSize = 1, shuffle = false } = options;
    if (!Number.isInteger(batchSize) || batchSize < 1) throw new DataError(`batchSize: expected an integer >= 1, got ${batchSize}`);
    if (!Number.isInteger(rank) || rank < 0 || rank >= worldSize) throw new DataError(`rank: expected 0 to ${worldSize - 1}, got ${rank}`);
    if (shuffle) throw new DataError('shuffle: a stream has one order; shuffle its source, by its epoch');
    this.batchSize = batchSize;
  }

  get state(): DataLoaderState {
    return { epoch: this.#epoch, samples: this.#samples, seed: this.options.seed ?? 0, dataset_length: null };
  }

  async next(): Promise<Planned<Item>> {
    const { rank = 0, worldSize = 1, dropLast = false } = this.options;
    const wanted = this.batchSize * worldSize;
    let items = await this.#take(wanted);
    const enough = () => items.length === wanted || (!dropLast && items.length > 0);
    // Another batch size before may have left too little of this epoch.
    if (!enough() && this.#samples > 0) {
      await this.#startEpoch();
      items = await this.#take(wanted);
    }
    if (!enough()) throw this.#tooFew(items.length, dropLast ? wanted : 1);
    // What is left of an epoch: as many for every rank, the first ones again where they don't divide.
    const each = Math.ceil(items.length / worldSize);
    const mine = Array.from({ length: each }, (_, i) => items[(rank * each + i) % items.length]!);
    this.#samples += items.length;
    if (await this.#endsWithin(dropLast ? wanted : 1)) await this.#startEpoch();
    return { items: mine, after: this.state };
  }

  at(state: DataLoaderState, batchSize = this.batchSize): StreamSource<Item> {
    const { epoch, samples, dataset_length: length } = state;
    if (length !== null) {
      throw new DataError(`cursor: expected one for a stream, got one for a dataset of ${length} samples; resume with the same data`);
    }
    const source = new StreamSource(this.data, { ...this.options, batchSize });
    source.#epoch = epoch;
    source.#samples = samples;
    return source;
  }

  async close(): Promise<void> {
    await this.#iterator?.return?.();
    this.#iterator = undefined;
  }

  /** So many items of this epoch, or as many as there are. */
  async #take(count: number): Promise<Item[]> {
    await this.#endsWithin(count);
    return this.#ahead.splice(0, count);
  }

  /** Whether the epoch has fewer items left. */
  async #endsWithin(count: number): Promise<boolean> {
    while (this.#ahead.length < count) {
      this.#iterator ??= iteratorOf(this.data.stream(this.#epoch, this.#samples + this.#ahead.length));
      const { value, done } = await this.#iterator.next();
      if (done) return true;
      this.#ahead.push(value);
    }
    return false;
  }

  async #startEpoch(): Promise<void> {
    await this.close();
    this.#ahead = [];
    this.#epoch++;
    this.#samples = 0;
  }

  #tooFew(got: number, wanted: number): DataError {
    return new DataError(`the stream of epoch ${this.#epoch} has ${got} samples, expected at least ${wanted}`);
  }
}

function iteratorOf<T>(source: Iterable<T> | AsyncIterable<T>): AsyncIterator<T> | Iterator<T> {
  return Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
}
