import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { rounded, SafetensorsFile, unitsOf } from '@deepspeed-ts/core';
import { DecoderLM, gpt2 } from '@deepspeed-ts/transformers';
import { initialize } from 'deepspeed-ts';
import type { RankContext } from '../spawn-world.js';

export interface SavedModelResult {
  /** What the save took on this rank's device at most. */
  readonly extraBytes: number;
  readonly largestUnitBytes: number;
  /** Weights whose file is not the rounded master weight; rank 0 looks. */
  readonly wrong: string[];
  /** Of a save to where nothing can be written. */
  readonly refusal: { readonly code: string; readonly message: string };
}

/** Saves in 16 bits at stage 3, in small files, and then into a file's place. */
export default async function run({ rank, args }: RankContext<{ directory: string }>): Promise<SavedModelResult> {
  const model = new DecoderLM(gpt2({ vocabSize: 301, layers: 3, heads: 2, dim: 32, context: 16 }));
  const config = {
    train_micro_batch_size_per_gpu: 1,
    bf16: { enabled: true },
    zero_optimization: { stage: 3 },
    optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
  };
  const { engine } = await initialize({ model, config, device: 'cpu' });
  const { device } = engine;
  device.resetPeaks();
  const before = device.backend.memory().live;
  await engine.save16bitModel(args.directory, { maxShardBytes: 20_000 });
  const extraBytes = device.backend.memory().peak - before;
  const { size } = engine.communicator;
  const units = unitsOf(model).map(({ parameters }) => [...parameters.values()].reduce((sum, { numel }) => sum + numel, 0));
  // Slices are multiples of 32 elements.
  const largestUnitBytes = 4 * Math.max(...units.map((numel) => Math.ceil(numel / (32 * size)) * 32 * size));

  const wrong: string[] = [];
  for await (const [name, value] of engine.weights()) {
    if (rank !== 0) continue;
    const { weight_map } = (await import(join(args.directory, 'model.safetensors.index.json'), { with: { type: 'json' } })).default;
    using file = new SafetensorsFile(join(args.directory, weight_map[name]));
    const expected = rounded({ ...value, dtype: 'bf16' });
    if (!file.tensor(name).data.every((x, i) => x === expected.data[i])) wrong.push(name);
  }
  const refusal = await engine.save16bitModel(join(args.directory, 'config.json', 'model')).then(
    () => ({ code: '', message: 'it was saved' }),
    ({ code, message }) => ({ code, message }),
  );
  // Ranks have stayed together.
  await engine.communicator.barrier();
  if (existsSync(join(args.directory, 'model'))) wrong.push('a directory that should not be there');
  await engine.dispose();
  return { extraBytes, largestUnitBytes, wrong, refusal };
}
