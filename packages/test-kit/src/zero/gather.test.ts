import { ReferenceBackend, type Tensor, type Work } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import { expect, test } from 'vitest';
import { MirrorCommunicator } from '../mirror-communicator.js';
import { close } from './training-run.js';

/** Notes how many elements each all-gather brings together. */
class CountingCommunicator extends MirrorCommunicator {
  readonly gathered: number[] = [];

  override allGather(output: Tensor, input: Tensor): Work {
    this.gathered.push(output.numel);
    return super.allGather(output, input);
  }
}

/** What is gathered in each of four training steps at stage 3. */
async function gathersOf(prefetch: boolean): Promise<number[][]> {
  const communicator = new CountingCommunicator(0, 2);
  const { engine } = await initialize({
    model: new DecoderLM(gpt2({ vocabSize: 40, layers: 4, heads: 2, dim: 16, context: 8 })),
    backend: new ReferenceBackend(),
    communicator,
    config: {
      train_micro_batch_size_per_gpu: 1,
      zero_optimization: { stage: 3, ...(!prefetch && { stage3_prefetch_bucket_size: 0 }) },
      optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    },
  });
  const data = Int32Array.from({ length: 8 }, (_, i) => (i * 7) % 40);
  const batch = { inputIds: { data, shape: [1, 8] }, labels: { data, shape: [1, 8] } };
  const steps: number[][] = [];
  for (let step = 0; step < 4; step++) {
    await engine.trainBatch([batch]);
    steps.push(communicator.gathered.splice(0));
  }
  await close(engine);
  return steps;
}

test('gathering ahead, within a pass and beside the step before, gathers no unit more often than gathering on demand', async () => {
  const [ahead, onDemand] = [await gathersOf(true), await gathersOf(false)];
  const times = (sizes: readonly number[], size: number) => sizes.filter((other) => other === size).length;
  // The first step learns the order; from then on each begins with what the one before has gathered for it.
  for (const step of [2, 3]) {
    expect(ahead[step]!.length).toBeGreaterThan(0);
    for (const size of ahead[step]!)
      expect(times(ahead[step]!, size), `${size} elements`).toBeLessThanOrEqual(times(onDemand[step]!, size));
  }
});
