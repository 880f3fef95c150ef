import { connect } from '@deepspeed-ts/kernels-cpu';
import type { RankContext } from '../spawn-world.js';
import { batchesOf, close, hashOf, openEngine, type TrainingResult, type TrainingRun, train } from './training-run.js';

export interface StagesArgs {
  readonly runs: Readonly<Record<string, TrainingRun>>;
  /** Two engines that are trained in turns, a step each. */
  readonly together: readonly [TrainingRun, TrainingRun];
}

export interface StagesResult {
  readonly runs: Readonly<Record<string, TrainingResult>>;
  readonly together: readonly string[];
}

/** A rank that trains one run after the other over one communicator, and two at the same time. */
export default async function rank({ args }: RankContext<StagesArgs>): Promise<StagesResult> {
  const communicator = await connect();
  const runs: Record<string, TrainingResult> = {};
  for (const [name, run] of Object.entries(args.runs)) runs[name] = await train(run, communicator);

  const engines = [await openEngine(args.together[0], communicator), await openEngine(args.together[1], communicator)];
  for (let step = 0; step < args.together[0].steps; step++) {
    for (const [i, engine] of engines.entries()) await engine.trainBatch(batchesOf(args.together[i]!, step, communicator.rank));
  }
  const together = [];
  for (const engine of engines) together.push(await hashOf(engine));
  for (const engine of engines) await close(engine);

  await communicator.close();
  return { runs, together };
}
