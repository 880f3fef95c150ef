import { type DeviceName, openDevice } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { type OptimizerResult, type OptimizerRun, trainAll } from './optimizer-run.js';

export interface OptimizersArgs {
  readonly runs: readonly OptimizerRun[];
  readonly device: DeviceName;
}

export default async function rank({ args }: RankContext<OptimizersArgs>): Promise<OptimizerResult[]> {
  const { backend, connect } = await openDevice(args.device);
  const communicator = await connect();
  const results = await trainAll(args.runs, communicator, backend);
  await communicator.close();
  return results;
}
