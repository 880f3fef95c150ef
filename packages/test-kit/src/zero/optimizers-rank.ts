import { openDevice } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { type OptimizerResult, type OptimizerRun, trainWith } from './optimizer-run.js';

/** A rank that trains one run after the other. */
export default async function rank({ args }: RankContext<readonly OptimizerRun[]>): Promise<OptimizerResult[]> {
  const { backend, connect } = await openDevice('cpu');
  const communicator = await connect();
  const results: OptimizerResult[] = [];
  for (const run of args) results.push(await trainWith(run, communicator, backend));
  await communicator.close();
  return results;
}
