import { join } from 'node:path';
import { bytesOf, type Parameter, shardName, type TensorPlan } from '@deepspeed-ts/core';
import type { Placement, ReadBytes, UnitLayout, ZeroStore } from '@deepspeed-ts/zero';
import { FileWriter } from './io/file-writer.js';
import type { FileThreads } from './io/threads.js';
import { partName } from './names.js';

/** State that has been copied to the host, to be written. */
export interface Snapshot {
  /** What this rank writes, by name. */
  readonly files: ReadonlyMap<string, FileWriter>;
  /** The file of every weight, of all ranks. */
  readonly weightMap: Readonly<Record<string, string>>;
  /** Bytes of all weights. */
  readonly totalSize: number;
  /** Why the copy could not be made. */
  readonly failure: unknown;
}

export interface SnapshotOptions {
  readonly directory: string;
  /** Which parameters' weights are to be saved. */
  readonly wanted: (parameter: Parameter) => boolean;
  readonly threads: FileThreads;
}

/**
 * Copies state to the host: whole weights of the units that this rank writes, and its slices of optimizer states and gradients.
 * Units are gathered one at a time; a rank's copy is one part in as many as there are ranks. Nothing is written yet, so that training waits
 * for the copy alone. Every rank calls it; what fails is in the result.
 */
export async function takeSnapshot(store: ZeroStore<never>, { directory, wanted, threads }: SnapshotOptions): Promise<Snapshot> {
  const { rank, size } = store.communicator;
  const placementsOf = (layout: UnitLayout) => layout.placements.filter(({ parameter }) => wanted(parameter));
  const layouts = store.layouts.filter((layout) => placementsOf(layout).length > 0);
  const writers = assign(layouts, size);
  const shards = [...new Set(writers.values())].sort((a, b) => a - b);
  const fileOf = (layout: UnitLayout) => shardName('model', shards.indexOf(writers.get(layout)!), shards.length);
  const mine = (layout: UnitLayout) => writers.get(layout) === rank;

  const placements = layouts.filter(mine).flatMap(placementsOf);
  const weightPlans = layouts
    .filter(mine)
    .flatMap((layout) =>
      placementsOf(layout).map(({ name, parameter }): TensorPlan => ({ name, shape: parameter.shape, dtype: store.weightDtype(layout) })),
    );
  const parts = [...store.localState()].filter(({ kind }) => kind !== 'weights');
  const partPlans = parts.map(({ kind, name, start, count, dtype }) => ({ name: partName(kind, name, start), shape: [count], dtype }));

  const elements = [...placements.map(({ numel }) => numel), ...parts.map(({ count }) => count)];
  const run = threads.runnerFor(4 * elements.reduce((sum, count) => sum + count, 0));
  const files = new Map<string, FileWriter>();
  const open = (name: string, plans: readonly TensorPlan[]) => {
    const writer = new FileWriter(join(directory, name), plans, run);
    files.set(name, writer);
    return writer;
  };
  const weights = shards.includes(rank) ? open(shardName('model', shards.indexOf(rank), shards.length), weightPlans) : undefined;
  const states = open(shardName('optimizer', rank, size), partPlans);
  const copies = new Copies();
  try {
    const indices = new Map<Placement, number>(placements.map((placement, index) => [placement, index]));
    for await (const { placement, read } of store.exportUnits('weights', mine)) {
      const index = indices.get(placement);
      if (index !== undefined) copies.add(weights!, index, read);
    }
    for (const [index, { read }] of parts.entries()) copies.add(states, index, read);
  } catch (error) {
    copies.failed(error);
  }
  const failure = await copies.end();
  const all = layouts.flatMap((layout) =>
    placementsOf(layout).map(({ name, numel }) => ({ name, bytes: numel * bytesOf(store.weightDtype(layout)), file: fileOf(layout) })),
  );
  return {
    files,
    weightMap: Object.fromEntries(all.map(({ name, file }) => [name, file])),
    totalSize: all.reduce((sum, { bytes }) => sum + bytes, 0),
    failure,
  };
}

/** Reads that are under way. They are asked for together, and come in order. */
class Copies {
  readonly #reads: Promise<void>[] = [];
  #failure: unknown;

  /** Copies a tensor to its file, by pieces. */
  add(writer: FileWriter, tensor: number, read: ReadBytes): void {
    for (const piece of writer.pieces[tensor]!) {
      this.#reads.push(
        read(piece.from, piece.count).then(
          (bytes) => writer.put(piece, bytes),
          (error: unknown) => this.failed(error),
        ),
      );
    }
  }

  failed(error: unknown): void {
    this.#failure ??= error;
  }

  /** Waits for all. @returns the first failure */
  async end(): Promise<unknown> {
    await Promise.all(this.#reads);
    return this.#failure;
  }
}

/** Which rank writes which unit: the largest unit goes to whoever has least so far. The same on every rank. */
function assign(layouts: readonly UnitLayout[], ranks: number): Map<UnitLayout, number> {
  const load = new Array<number>(ranks).fill(0);
  const writers = new Map<UnitLayout, number>();
  for (const layout of [...layouts].sort((a, b) => b.numel - a.numel)) {
    const rank = load.indexOf(Math.min(...load));
    load[rank]! += layout.numel;
    writers.set(layout, rank);
  }
  return writers;
}
