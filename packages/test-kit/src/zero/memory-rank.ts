import { connect } from '@deepspeed-ts/kernels-cpu';
import type { RankContext } from '../spawn-world.js';
import { type MemoryResult, type MemoryRun, measureMemory } from './memory-run.js';

/** A rank that measures one run after the other. */
export default async function rank({ args }: RankContext<readonly MemoryRun[]>): Promise<MemoryResult[]> {
  const communicator = await connect();
  const results: MemoryResult[] = [];
  for (const run of args) results.push(await measureMemory(run, communicator));
  await communicator.close();
  return results;
}
