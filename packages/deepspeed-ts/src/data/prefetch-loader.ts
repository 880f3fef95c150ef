import { DataError } from './data-error.js';
import type { ItemSource } from './item-source.js';
import type { Produce } from './produce.js';
import type { DataLoaderState } from './sampler.js';

interface Entry<Batch> {
  readonly batch: Batch;
  readonly after: DataLoaderState;
}

export interface PrefetchOptions {
  /** Micro-batches that are loaded ahead of the one that is drawn. */
  readonly depth: number;
  /** Gives back what makes batches, threads say. */
  readonly close?: () => Promise<void>;
}

/**
 * Draws micro-batches that were loaded while the one before was trained on. At most `depth` are ahead. Its state is that of the batches
 * that were drawn: what is loaded and not drawn is loaded again after a resume, and nothing is missed.
 */
export class PrefetchLoader<Batch> implements AsyncIterable<Batch> {
  readonly #produce: Produce<never, Batch>;
  readonly #options: PrefetchOptions;
  #source: ItemSource<never>;
  #queue: Promise<Entry<Batch>>[] = [];
  /** Plans come one after the other, while batches are made side by side. */
  #planned: Promise<unknown> = Promise.resolve();
  /** Of the batches that were drawn. */
  #state: DataLoaderState;
  #disposed = false;

  constructor(source: ItemSource<never>, produce: Produce<never, Batch>, options: PrefetchOptions) {
    if (!Number.isInteger(options.depth) || options.depth < 1)
      throw new DataError(`prefetch: expected an integer >= 1, got ${options.depth}`);
    this.#source = source;
    this.#produce = produce;
    this.#options = options;
    this.#state = source.state;
  }

  /** Samples of one micro-batch on one rank. */
  get batchSize(): number {
    return this.#source.batchSize;
  }

  /** Micro-batches of one epoch; `undefined` for a stream. */
  get length(): number | undefined {
    return this.#source.length;
  }

  /** Epochs that have been drawn to their end. */
  get epoch(): number {
    return this.#state.epoch;
  }

  /**
   * The next micro-batch of this rank; after the last of an epoch comes the first of the next.
   *
   * @throws DataError naming the sample that could not be had; the loader stays before this micro-batch
   */
  async next(): Promise<Batch> {
    if (this.#disposed) throw new DataError('the loader has been disposed');
    this.#fill();
    const entry = this.#queue.shift()!;
    this.#fill();
    try {
      const { batch, after } = await entry;
      this.#state = after;
      return batch;
    } catch (error) {
      this.#goTo(this.#state);
      throw error;
    }
  }

  /** The micro-batches from here to the end of the epoch. A loop that is left early goes on where it was when it is entered again. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    const { epoch } = this;
    while (this.epoch === epoch) yield await this.next();
  }

  stateDict(): DataLoaderState {
    return this.#state;
  }

  /** As the loaders without prefetch; what was loaded ahead is dropped. */
  loadStateDict(state: DataLoaderState): void {
    this.#goTo(state);
  }

  /** Goes to the beginning of an epoch. Every rank calls it. */
  setEpoch(epoch: number): void {
    this.#goTo({ ...this.#state, epoch, samples: 0 });
  }

  /** Samples of the micro-batches from here on. Every rank calls it. */
  setBatchSize(samples: number): void {
    this.#goTo(this.#state, samples);
  }

  /** Ends what is under way; no thread and no open file stays behind. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#queue.length = 0;
    await this.#options.close?.();
    await this.#planned;
    await this.#source.close();
  }

  #fill(): void {
    while (this.#queue.length < this.#options.depth) {
      const entry = this.#load();
      // Told when it is drawn.
      entry.catch(() => {});
      this.#queue.push(entry);
    }
  }

  async #load(): Promise<Entry<Batch>> {
    const source = this.#source;
    const plan = this.#planned.then(() => {
      if (this.#disposed || source !== this.#source) throw new DataError('nobody wants this batch any more');
      return source.next();
    });
    // The one after waits for it, whatever becomes of it.
    this.#planned = plan.catch(() => {});
    const { items, after } = await plan;
    return { batch: await this.#produce(items), after };
  }

  /** @throws DataError with nothing changed */
  #goTo(state: DataLoaderState, batchSize?: number): void {
    const old = this.#source;
    this.#source = old.at(state, batchSize);
    this.#state = this.#source.state;
    this.#queue = [];
    this.#planned = this.#planned.then(() => old.close()).catch(() => {});
  }
}
