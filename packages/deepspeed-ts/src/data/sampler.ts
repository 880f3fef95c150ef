import { DataError } from './data-error.js';
import { Permutation } from './permutation.js';

export interface SamplerOptions {
  /** Samples of one micro-batch on one rank. */
  readonly batchSize: number;
  readonly rank?: number;
  readonly worldSize?: number;
  /** Visit samples in another random order each epoch. Default true. */
  readonly shuffle?: boolean;
  /** Every rank must give the same. Default 0. */
  readonly seed?: number;
  /**
   * What to do with the last samples of an epoch that don't fill a micro-batch on every rank. True leaves them out. False makes of them
   * a smaller micro-batch of the same size on every rank, repeating a sample or two from the start of the epoch where they don't divide.
   */
  readonly dropLast?: boolean;
}

/** Where a sampler or loader stands, the same on all ranks; names as in a checkpoint. */
export interface DataLoaderState {
  readonly epoch: number;
  /** Samples of this epoch that all ranks together have drawn. */
  readonly samples: number;
  readonly seed: number;
  /** null for data whose length nobody knows. */
  readonly dataset_length: number | null;
}

/**
 * Chooses the samples of one rank's micro-batches. The order of an epoch is one permutation shared by all ranks; each global micro-batch
 * is the next batchSize * worldSize entries of it, of which rank r takes the r-th part. So the samples of an optimizer step depend on
 * train_batch_size alone, and a cursor saved at one number of ranks goes on at any other without repeating or missing a sample.
 */
export class ResumableSampler implements Iterable<number[]> {
  readonly #rank: number;
  readonly #worldSize: number;
  readonly #shuffle: boolean;
  readonly #seed: number;
  readonly #dropLast: boolean;
  #batchSize = 0;
  #epoch = 0;
  #cursor = 0;
  #order: Permutation;

  /**
   * @param datasetLength - Samples of an epoch.
   * @throws DataError when the dataset is empty or smaller than one micro-batch on every rank.
   */
  constructor(
    readonly datasetLength: number,
    options: SamplerOptions,
  ) {
    const { batchSize, rank = 0, worldSize = 1, shuffle = true, seed = 0, dropLast = false } = options;
    if (!Number.isInteger(rank) || rank < 0 || rank >= worldSize) throw new DataError(`rank: expected 0 to ${worldSize - 1}, got ${rank}`);
    if (datasetLength === 0) throw new DataError('the dataset is empty: it has no sample to train on');
    this.#rank = rank;
    this.#worldSize = worldSize;
    this.#shuffle = shuffle;
    this.#seed = seed;
    this.#dropLast = dropLast;
    this.setBatchSize(batchSize);
    this.#order = new Permutation(datasetLength, seed, 0);
  }

  /** Samples of one micro-batch on one rank. */
  get batchSize(): number {
    return this.#batchSize;
  }

  /**
   * Samples of the micro-batches from here on; the order of samples stays. Every rank calls it.
   *
   * @throws DataError where the dataset is smaller than one micro-batch on every rank
   */
  setBatchSize(samples: number): void {
    if (!Number.isInteger(samples) || samples < 1) throw new DataError(`batchSize: expected an integer >= 1, got ${samples}`);
    const ranks = this.#worldSize;
    const length = this.datasetLength;
    if (length < samples * ranks) {
      throw new DataError(
        `the dataset has ${length} samples, fewer than one micro-batch on every rank: ${samples} samples * ${ranks} ranks = ${samples * ranks}; give more data, fewer ranks or a smaller micro-batch`,
      );
    }
    this.#batchSize = samples;
    // What is left of the epoch may be less than one micro-batch now.
    if (this.#order && this.#leftAfter(this.#cursor) === 0) this.setEpoch(this.#epoch + 1);
  }

  /** Micro-batches of one epoch. */
  get length(): number {
    const batches = this.datasetLength / (this.#batchSize * this.#worldSize);
    return this.#dropLast ? Math.floor(batches) : Math.ceil(batches);
  }

  /** Epochs that have been drawn to their end. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Goes to the beginning of an epoch. Every rank calls it. */
  setEpoch(epoch: number): void {
    this.#enter(epoch, 0);
  }

  /** Indices of the samples of this rank's next micro-batch; after the last of an epoch comes the first of the next. */
  next(): number[] {
    const { indices, end } = this.peek();
    this.advance(end);
    return indices;
  }

  /** The next micro-batch without taking it, and the cursor that {@link advance} takes it with. */
  peek(): { indices: number[]; end: number } {
    const left = this.datasetLength - this.#cursor;
    const size = Math.min(this.#batchSize, Math.ceil(left / this.#worldSize));
    const first = this.#cursor + this.#rank * size;
    const indices = Array.from({ length: size }, (_, i) => {
      const position = (first + i) % this.datasetLength;
      return this.#shuffle ? this.#order.at(position) : position;
    });
    return { indices, end: Math.min(this.#cursor + size * this.#worldSize, this.datasetLength) };
  }

  advance(end: number): void {
    if (this.#leftAfter(end) === 0) this.setEpoch(this.#epoch + 1);
    else this.#cursor = end;
  }

  /** The micro-batches from the cursor to the end of the epoch. A loop that is left early goes on where it was when it is entered again. */
  *[Symbol.iterator](): Generator<number[], void, undefined> {
    const epoch = this.#epoch;
    while (this.#epoch === epoch) yield this.next();
  }

  stateDict(): DataLoaderState {
    return { epoch: this.#epoch, samples: this.#cursor, seed: this.#seed, dataset_length: this.datasetLength };
  }

  /**
   * Goes on where another sampler over the same data stood, whatever its number of ranks and batch size.
   *
   * @throws DataError when the state belongs to a dataset of another length or another seed: the order would not be the same.
   */
  loadStateDict(state: DataLoaderState): void {
    if (state.dataset_length !== this.datasetLength) {
      const got = state.dataset_length ?? 'a stream';
      throw new DataError(
        `cursor: expected one for a dataset of ${this.datasetLength} samples, got one for ${got}; resume with the same data`,
      );
    }
    if (this.#shuffle && state.seed !== this.#seed) {
      throw new DataError(`cursor: expected one for seed ${this.#seed}, got one for seed ${state.seed}; resume with the same seed`);
    }
    const { epoch, samples } = state;
    if (!(Number.isInteger(epoch) && epoch >= 0 && Number.isInteger(samples) && samples >= 0 && samples <= this.datasetLength)) {
      throw new DataError(`cursor: expected an epoch >= 0 and samples within the dataset, got epoch ${epoch}, samples ${samples}`);
    }
    if (this.#leftAfter(samples) === 0) this.setEpoch(epoch + 1);
    else this.#enter(epoch, samples);
  }

  #enter(epoch: number, cursor: number): void {
    this.#epoch = epoch;
    this.#cursor = cursor;
    this.#order = new Permutation(this.datasetLength, this.#seed, epoch);
  }

  /** Samples of the epoch that will still be drawn after the first `cursor`. */
  #leftAfter(cursor: number): number {
    const left = this.datasetLength - cursor;
    return this.#dropLast && left < this.#batchSize * this.#worldSize ? 0 : left;
  }
}
