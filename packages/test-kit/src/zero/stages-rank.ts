import type { Backend, Communicator } from '@deepspeed-ts/core';
import { type DeepSpeedEngine, type DeviceName, openDevice } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { batchesOf, close, hashOf, openEngine, type TrainingResult, type TrainingRun, train } from './training-run.js';

export interface StagesArgs {
  readonly runs: Readonly<Record<string, TrainingRun>>;
  /** Trained by engines that live at the same time, a step each in turn. */
  readonly together: readonly TrainingRun[];
  /** Default: the CPU. */
  readonly device?: DeviceName;
}

export interface StagesResult {
  readonly runs: Readonly<Record<string, TrainingResult>>;
  readonly together: readonly string[];
}

/** A rank that trains one run after the other over one communicator, and two at the same time. */
export default async function rank({ args }: RankContext<StagesArgs>): Promise<StagesResult> {
  const { backend, connect } = await openDevice(args.device ?? 'cpu');
  const communicator = await connect();
  const runs: Record<string, TrainingResult> = {};
  for (const [name, run] of Object.entries(args.runs)) runs[name] = await train(run, communicator, backend);

  const together = await trainInTurns(args.together, communicator, backend);
  await communicator.close();
  return { runs, together };
}

/** Hashes of the weights in the end. */
async function trainInTurns(runs: readonly TrainingRun[], communicator: Communicator, backend: Backend): Promise<string[]> {
  const engines: DeepSpeedEngine[] = [];
  for (const run of runs) engines.push(await openEngine(run, communicator, backend));
  for (let step = 0; step < (runs[0]?.steps ?? 0); step++) {
    for (const [i, engine] of engines.entries()) await engine.trainBatch(batchesOf(runs[i]!, step, communicator.rank));
  }
  const hashes: string[] = [];
  for (const engine of engines) hashes.push(await hashOf(engine));
  for (const engine of engines) await close(engine);
  return hashes;
}
