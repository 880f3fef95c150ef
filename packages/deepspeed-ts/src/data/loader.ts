import type { Dataset } from '@deepspeed-ts/core';
import { type Stacked, stack } from './collate.js';
import { DataError, sampleError } from './data-error.js';
import { type DataLoaderState, ResumableSampler, type SamplerOptions } from './sampler.js';

export interface DataLoaderOptions<Sample, Batch> extends SamplerOptions {
  /** Makes a batch of samples. Default {@link stack}. */
  readonly collate?: (samples: readonly Sample[]) => Batch;
}

/** Draws micro-batches for one rank, in the order of a {@link ResumableSampler}. */
export class DataLoader<Sample, Batch = Stacked<Sample>> implements Iterable<Batch> {
  readonly #sampler: ResumableSampler;
  readonly #collate: (samples: readonly Sample[]) => Batch;

  /** @throws DataError when the dataset is empty or smaller than one micro-batch on every rank. */
  constructor(
    readonly dataset: Dataset<Sample>,
    { collate, ...options }: DataLoaderOptions<Sample, Batch>,
  ) {
    this.#sampler = new ResumableSampler(dataset.length, options);
    // Without a collate function of the caller, Batch is its default.
    this.#collate = collate ?? (stack as unknown as (samples: readonly Sample[]) => Batch);
  }

  /** Samples of one micro-batch on one rank. */
  get batchSize(): number {
    return this.#sampler.batchSize;
  }

  /** As {@link ResumableSampler.setBatchSize}. */
  setBatchSize(samples: number): void {
    this.#sampler.setBatchSize(samples);
  }

  /** Micro-batches of one epoch. */
  get length(): number {
    return this.#sampler.length;
  }

  /** Epochs that have been drawn to their end. */
  get epoch(): number {
    return this.#sampler.epoch;
  }

  /** Goes to the beginning of an epoch. Every rank calls it. */
  setEpoch(epoch: number): void {
    this.#sampler.setEpoch(epoch);
  }

  /**
   * The next micro-batch of this rank; after the last of an epoch comes the first of the next.
   *
   * @throws DataError naming the sample that could not be had; the loader stays before this micro-batch
   */
  next(): Batch {
    const { indices, end } = this.#sampler.peek();
    const batch = this.#collate(indices.map((index) => this.#get(index)));
    this.#sampler.advance(end);
    return batch;
  }

  /** The micro-batches from the cursor to the end of the epoch. A loop that is left early goes on where it was when it is entered again. */
  *[Symbol.iterator](): Generator<Batch, void, undefined> {
    const { epoch } = this;
    while (this.epoch === epoch) yield this.next();
  }

  stateDict(): DataLoaderState {
    return this.#sampler.stateDict();
  }

  /** As {@link ResumableSampler.loadStateDict}. */
  loadStateDict(state: DataLoaderState): void {
    this.#sampler.loadStateDict(state);
  }

  #get(index: number): Sample {
    let sample: Sample;
    try {
      sample = this.dataset.get(index);
    } catch (error) {
      throw sampleError(index, error);
    }
    if (sample instanceof Promise) {
      sample.catch(() => {});
      throw new DataError(`sample ${index} is a promise; give \`prefetch\`, and micro-batches are loaded ahead of training`, { index });
    }
    return sample;
  }
}
