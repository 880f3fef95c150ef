import { connect } from '@deepspeed-ts/kernels-cpu';
import { initialize } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { buildModel } from './models.js';
import { close, configOf, microBatch, type TrainingRun } from './training-run.js';

export interface SoakArgs {
  readonly run: TrainingRun;
  /** Steps after which to look. */
  readonly looks: readonly number[];
}

/** What a process holds, in a moment. */
export interface Held {
  readonly buffers: number;
  readonly bufferBytes: number;
  /** Of JavaScript's heap in use, after a collection. */
  readonly heapBytes: number;
  /** Of the whole process. */
  readonly residentBytes: number;
  /** Things that keep its event loop busy. */
  readonly handles: readonly string[];
}

/** Trains on and on, and notes what is held now and then. */
export default async function rank({ rank, args }: RankContext<SoakArgs>): Promise<readonly Held[]> {
  const communicator = await connect();
  const { engine } = await initialize({ model: buildModel(args.run.model), communicator, config: configOf(args.run) });
  const held = async (): Promise<Held> => {
    await engine.device.backend.synchronize();
    globalThis.gc!();
    return {
      buffers: engine.device.liveBuffers,
      bufferBytes: engine.device.backend.memory().live,
      heapBytes: process.memoryUsage().heapUsed,
      residentBytes: process.memoryUsage.rss(),
      handles: process.getActiveResourcesInfo().sort(),
    };
  };
  const seen: Held[] = [];
  for (let step = 1; step <= args.run.steps; step++) {
    await engine.trainBatch([microBatch(step, 0, rank)]);
    if (args.looks.includes(step)) seen.push(await held());
  }
  await close(engine);
  await communicator.close();
  return seen;
}
