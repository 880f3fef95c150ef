import { connect, cpuBackend } from '@deepspeed-ts/kernels-cpu';
import * as cuda from '@deepspeed-ts/kernels-cuda';
import type { RankContext } from '../spawn-world.js';
import { type MeasuredMemory, measure, type PlannedRun, type RunScale } from './planned-run.js';

export interface PlanRankArgs {
  readonly runs: readonly PlannedRun[];
  readonly scale?: RunScale;
  readonly device: 'cpu' | 'cuda';
}

/** A rank that measures one run after the other. */
export default async function rank({ args: { runs, scale, device } }: RankContext<PlanRankArgs>): Promise<MeasuredMemory[]> {
  const backend = device === 'cuda' ? cuda.cudaBackend() : cpuBackend();
  const communicator = backend instanceof cuda.CudaBackend ? await cuda.connect({ backend }) : await connect();
  const results: MeasuredMemory[] = [];
  for (const run of runs) results.push(await measure(run, communicator, backend, scale));
  await communicator.close();
  return results;
}
