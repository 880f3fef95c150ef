import { connect } from '@deepspeed-ts/kernels-cpu';
import { initialize } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { buildModel, CONTEXT, VOCABULARY } from '../zero/models.js';
import { batchesOf, close, configOf, hashOf, microBatch, openEngine, type TrainingRun } from '../zero/training-run.js';

export interface EngineResult {
  readonly evaluation: { readonly own: number; readonly mean: number; readonly untouched: boolean };
  /** Hashes after steps by hand and by `trainBatch`. */
  readonly hashes: readonly string[];
  readonly norms: readonly number[];
  /** First token of every sample that this rank drew in one epoch. */
  readonly drawn: readonly number[];
}

const run: TrainingRun = { model: 'gpt', stage: 3, accumulation: 2, steps: 3 };

/** What an engine does as one of several ranks. */
export default async function rank(context: RankContext): Promise<EngineResult> {
  const communicator = await connect();
  const result = {
    evaluation: await evaluate(context),
    ...(await trainTwice(context)),
    drawn: await draw(),
  };
  await communicator.close();
  return result;

  async function evaluate({ rank }: RankContext): Promise<EngineResult['evaluation']> {
    const engine = await openEngine(run, communicator);
    const before = await hashOf(engine);
    const batch = microBatch(0, 0, rank);
    const mean = await engine.evalBatch(batch);
    const own = await engine.forward(batch).item();
    const untouched = (await hashOf(engine)) === before;
    await close(engine);
    return { own, mean, untouched };
  }

  async function trainTwice({ rank }: RankContext): Promise<Pick<EngineResult, 'hashes' | 'norms'>> {
    const hashes: string[] = [];
    const norms: number[] = [];
    for (const byHand of [true, false]) {
      const engine = await openEngine(run, communicator);
      for (let step = 0; step < run.steps; step++) {
        const batches = batchesOf(run, step, rank);
        if (!byHand) await engine.trainBatch(batches);
        for (const batch of byHand ? batches : []) {
          engine.backward(engine.forward(batch));
          await engine.step();
        }
      }
      hashes.push(await hashOf(engine));
      norms.push(engine.globalGradNorm);
      await close(engine);
    }
    return { hashes, norms };
  }

  /** Trains an epoch of 16 samples, told apart by their first token, and prints a report after every second step. */
  async function draw(): Promise<number[]> {
    const samples = Array.from({ length: 16 }, (_, i) => {
      const data = Int32Array.from({ length: CONTEXT }, (_, t) => (i + t) % VOCABULARY);
      return { inputIds: { data, shape: [CONTEXT] }, labels: { data, shape: [CONTEXT] } };
    });
    const drawn: number[] = [];
    const trainingData = {
      length: samples.length,
      get(i: number) {
        drawn.push(i);
        return samples[i]!;
      },
    };
    const config = { ...configOf({ ...run, accumulation: 1 }), steps_per_print: 2 };
    const { engine } = await initialize({ model: buildModel('gpt'), communicator, config, trainingData, seed: 5 });
    for (let step = 0; step < 4; step++) await engine.trainBatch();
    await close(engine);
    return drawn;
  }
}
