import type { UnitLayout, ZeroStore } from '@deepspeed-ts/zero';
import type { HostBytes } from './files.js';
import { partName, shardName } from './names.js';

/** What this rank writes: tensors in host memory, by file. */
export interface Snapshot {
  readonly files: ReadonlyMap<string, HostBytes[]>;
  /** The file of every weight, of all ranks. */
  readonly weightMap: Readonly<Record<string, string>>;
  /** Bytes of all weights. */
  readonly totalSize: number;
}

/**
 * Copies state to the host: whole weights of the units that this rank writes, and its slices of optimizer states and gradients.
 * Units are gathered one at a time; a rank's copy is one part in as many as there are ranks. Every rank calls it.
 */
export async function takeSnapshot(store: ZeroStore<never>): Promise<Snapshot> {
  const { rank, size } = store.communicator;
  const { layouts } = store;
  const writers = assign(layouts, size);
  const shards = [...new Set(writers.values())].sort((a, b) => a - b);
  const fileOf = (layout: UnitLayout) => shardName('model', shards.indexOf(writers.get(layout)!), shards.length);
  const placements = layouts.flatMap((layout) => layout.placements.map(({ name, numel }) => ({ name, numel, file: fileOf(layout) })));

  const weights: HostBytes[] = [];
  for await (const [{ name, parameter }, bytes] of store.exportBytes('weights', (layout) => writers.get(layout) === rank)) {
    weights.push({ plan: { name, shape: parameter.shape, dtype: 'f32' }, bytes });
  }
  const parts = [...store.localState()].filter(({ kind }) => kind !== 'weights');
  // Asked for together: reads are queued and come in order.
  const optimizer = await Promise.all(
    parts.map(async ({ kind, name, start, count, dtype, read }): Promise<HostBytes> => {
      return { plan: { name: partName(kind, name, start), shape: [count], dtype }, bytes: await read() };
    }),
  );
  const files = new Map<string, HostBytes[]>();
  if (shards.includes(rank)) files.set(shardName('model', shards.indexOf(rank), shards.length), weights);
  files.set(shardName('optimizer', rank, size), optimizer);
  return {
    files,
    weightMap: Object.fromEntries(placements.map(({ name, file }) => [name, file])),
    totalSize: placements.reduce((sum, { numel }) => sum + 4 * numel, 0),
  };
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
