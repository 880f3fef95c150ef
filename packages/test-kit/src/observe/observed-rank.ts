import { type CommunicationRow, type DeviceName, initialize, openDevice } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { buildModel } from '../zero/models.js';
import { batchesOf, close, configOf, hashOf, type TrainingRun } from '../zero/training-run.js';

export interface ObservedArgs {
  /** Where everything is written. */
  readonly folder: string;
  readonly device: DeviceName;
}

export interface ObservedResult {
  /** Hashes of weights: without anybody looking on, and with everybody. */
  readonly hashes: readonly string[];
  readonly rows: readonly CommunicationRow[];
  /** Forward and backward FLOPs of the whole model by engine.profile(). */
  readonly flops: readonly number[];
}

const run: TrainingRun = { model: 'gpt', stage: 3, accumulation: 2, steps: 5 };

/** Trains twice: as it is, and with all that can look on. */
export default async function rank({ rank, args: { folder, device } }: RankContext<ObservedArgs>): Promise<ObservedResult> {
  const { backend, connect } = await openDevice(device);
  const communicator = await connect();
  const on = { enabled: true, output_path: folder };
  const everything = {
    comms_logger: { enabled: true, debug: true },
    flops_profiler: { enabled: true, profile_step: 1, output_file: `${folder}/profile.json` },
    trace: { enabled: true, path: `${folder}/traces`, start_step: 2, steps: 2 },
    tensorboard: on,
    csv_monitor: on,
    wall_clock_breakdown: true,
    steps_per_print: 2,
  };
  const hashes: string[] = [];
  let rows: readonly CommunicationRow[] = [];
  let flops: readonly number[] = [];
  for (const config of [{}, everything]) {
    const { engine } = await initialize({
      model: buildModel('gpt'),
      communicator,
      backend,
      seed: 3,
      config: { ...configOf(run), ...config },
    });
    for (let step = 0; step < run.steps; step++) {
      const profile = step === run.steps - 1 ? engine.profile() : undefined;
      await engine.trainBatch(batchesOf(run, step, rank));
      if (profile) flops = await profile.then(({ model }) => [model.forward.flops, model.backward.flops]);
    }
    if (config === everything) rows = await engine.communication.summary();
    hashes.push(await hashOf(engine));
    await close(engine);
  }
  await communicator.close();
  return { hashes, rows, flops };
}
