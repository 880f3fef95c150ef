import type { Communicator } from '@deepspeed-ts/core';
import { connect } from '@deepspeed-ts/kernels-cpu';
import { type DeepSpeedEngine, initialize } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';
import { buildModel, type ModelName } from '../zero/models.js';
import { close, configOf, hashOf, microBatch } from '../zero/training-run.js';

/** How micro-batches become steps. */
export type Way = 'step by step' | 'noSync' | 'coalesced' | 'by hand' | 'recomputed' | 'recomputed from the host';

export interface AccumulationRun {
  readonly way: Way;
  readonly stage: 0 | 1 | 2 | 3;
  readonly model: ModelName;
  readonly bf16?: boolean;
}

export interface AccumulationResult {
  readonly hash: string;
  readonly norms: readonly number[];
  readonly samples: number;
}

const MICRO = 3;
const STEPS = 3;

const checkpointing: Partial<Record<Way, object>> = {
  recomputed: { number_checkpoints: 1 },
  'recomputed from the host': { cpu_checkpointing: true },
};

/** Runs one after the other over one communicator. */
export default async function rank({ args }: RankContext<readonly AccumulationRun[]>): Promise<AccumulationResult[]> {
  const communicator = await connect();
  const results = [];
  for (const run of args) results.push(await train(run, communicator));
  await communicator.close();
  return results;
}

async function train(run: AccumulationRun, communicator: Communicator): Promise<AccumulationResult> {
  const { way, stage, bf16 = false } = run;
  const section = checkpointing[way];
  const config = {
    ...configOf({ model: run.model, stage, bf16, accumulation: MICRO, steps: STEPS }),
    ...(section && { activation_checkpointing: section }),
  };
  const { engine } = await initialize({ model: buildModel(run.model, { dropout: 0.1 }), communicator, seed: 3, config });
  const norms: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    await takeStep(engine, way, step);
    norms.push(engine.globalGradNorm);
  }
  const result = { hash: await hashOf(engine), norms, samples: engine.globalSamples };
  await close(engine);
  return result;
}

async function takeStep(engine: DeepSpeedEngine, way: Way, step: number): Promise<void> {
  const pass = (micro: number) => engine.backward(engine.forward(microBatch(step, micro, engine.rank)));
  const all = Array.from({ length: MICRO }, (_, micro) => micro);
  if (way === 'coalesced') {
    engine.coalesceGradReduction(() => all.forEach(pass));
    engine.setGradientAccumulationBoundary(true);
    return engine.step();
  }
  for (const micro of all) {
    const last = micro === MICRO - 1;
    if (way === 'by hand') engine.setGradientAccumulationBoundary(last);
    if (way === 'noSync' && !last) engine.noSync(() => pass(micro));
    else pass(micro);
    await engine.step();
  }
}
