import {
  type AllocateOptions,
  type BufferHandle,
  type Communicator,
  OutOfMemoryError,
  ReferenceBackend,
  WorldOfOne,
} from '@deepspeed-ts/core';
import { type DeepSpeedEngine, initialize } from 'deepspeed-ts';
import { expect, test } from 'vitest';
import { MirrorCommunicator } from '../mirror-communicator.js';
import { buildModel, type ModelName } from './models.js';
import { configOf, microBatch, type TrainingRun } from './training-run.js';

/** Has no memory for one allocation, the `failing`th. */
class ScarceBackend extends ReferenceBackend {
  allocations = 0;

  constructor(readonly failing: number) {
    super();
  }

  override allocate(bytes: number, _options?: AllocateOptions): BufferHandle {
    if (++this.allocations === this.failing) throw new OutOfMemoryError(this.name, bytes, this.memory().live, 'This is a test.');
    return super.allocate(bytes);
  }
}

interface Attempt {
  readonly outOfMemory: boolean;
  readonly allocations: number;
  readonly live: number;
}

/** Opens an engine, takes a step of two micro-batches, disposes it. */
async function attempt(run: TrainingRun, communicator: Communicator, failing: number): Promise<Attempt> {
  const backend = new ScarceBackend(failing);
  const model = buildModel(run.model, run);
  let engine: DeepSpeedEngine | undefined;
  let outOfMemory = false;
  try {
    ({ engine } = await initialize({ model, communicator, backend, config: configOf(run) }));
    await engine.trainBatch([microBatch(0, 0, 0), microBatch(0, 1, 0)]);
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    outOfMemory = true;
  }
  await engine?.dispose();
  model.dispose();
  return { outOfMemory, allocations: backend.allocations, live: backend.memory().live };
}

const runs: [string, ModelName, Omit<TrainingRun, 'model'>, Communicator][] = [
  [
    'at stage 3, recomputing',
    'gpt',
    { stage: 3, bf16: true, recompute: true, accumulation: 2, dropout: 0.1, steps: 1 },
    new MirrorCommunicator(1, 4),
  ],
  ['at stage 1', 'odd', { stage: 1, accumulation: 2, steps: 1 }, new MirrorCommunicator(0, 2)],
  ['in a world of one', 'gpt', { stage: 0, accumulation: 2, steps: 1 }, new WorldOfOne()],
];

test.each(runs)('wherever memory runs out in a step, dispose() gives everything back: %s', async (_, model, options, communicator) => {
  const run: TrainingRun = { model, ...options };
  const { allocations } = await attempt(run, communicator, 0);
  const leaks: string[] = [];
  for (let failing = 1; failing <= allocations; failing += 5) {
    const { outOfMemory, live } = await attempt(run, communicator, failing);
    if (!outOfMemory || live > 0) leaks.push(`allocation ${failing} of ${allocations}: ${live} bytes are left`);
  }
  expect(leaks).toEqual([]);
});
