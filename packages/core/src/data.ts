import type { Tensor } from './tensor/tensor.js';

/** Numbers in JavaScript memory with a shape, row-major. The engine makes tensors of them: i32 of Int32Array, f32 of Float32Array. */
export interface HostArray {
  readonly data: Int32Array | Float32Array;
  readonly shape: readonly number[];
}

/** A micro-batch: a record of arrays as a loader gives them, or of tensors on the engine's device. */
export type Batch = Readonly<Record<string, HostArray | Tensor>>;

/** Samples that can be fetched by index, in any order. */
export interface Dataset<Sample> {
  readonly length: number;
  get(index: number): Sample;
}

/** Samples that can be fetched by index, in any order, some time later. */
export interface AsyncDataset<Sample> {
  readonly length: number;
  get(index: number): Sample | Promise<Sample>;
}

/**
 * Data that comes in one order and whose length nobody knows: lines of a file, records of a service. All ranks read the whole stream,
 * and each loads the items that are its own, so `stream` should give what is cheap, such as a line or a place in a file, and `load` do the work.
 */
export interface IterableDataset<Item, Sample = Item> {
  /** The items of an epoch from the one numbered `start` on; the same on every rank, and again the same when a run is resumed. */
  stream(epoch: number, start: number): Iterable<Item> | AsyncIterable<Item>;
  /** Makes the sample of an item; default: it is one. */
  load?(item: Item): Sample | Promise<Sample>;
}

/** A dataset that threads of its own load, from a module that they import. */
export interface ThreadedDataset {
  /** URL of the module. */
  readonly module: string;
  readonly workers: number;
  readonly args: unknown;
  /** Samples, where they are known before a thread has opened it. */
  readonly samples?: number | undefined;
}

/** Everything that micro-batches can be drawn from. */
export type TrainingData<Sample> = Dataset<Sample> | AsyncDataset<Sample> | IterableDataset<unknown, Sample> | ThreadedDataset;

/** Draws micro-batches for one rank. */
export interface BatchLoader {
  /** Epochs that have been drawn to their end. */
  readonly epoch: number;
  /** Micro-batches of one epoch; `undefined` for data whose length nobody knows. */
  readonly length: number | undefined;
  /** The next micro-batch of this rank; after the last of an epoch comes the first of the next. */
  next(): Batch | Promise<Batch>;
  /** Goes to the beginning of an epoch. Every rank calls it. */
  setEpoch(epoch: number): void;
}
