import { connect, cpuBackend } from '@deepspeed-ts/kernels-cpu';
import type { RankContext } from '../spawn-world.js';
import { type MeasuredMemory, measure, type PlannedRun } from './planned-run.js';

/** A rank that measures one run after the other. */
export default async function rank({ args }: RankContext<readonly PlannedRun[]>): Promise<MeasuredMemory[]> {
  const communicator = await connect();
  const backend = cpuBackend();
  const results: MeasuredMemory[] = [];
  for (const run of args) results.push(await measure(run, communicator, backend));
  await communicator.close();
  return results;
}
