import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DecoderLM, type Module, type TensorPlan, unitsOf, writeSafetensors } from '@deepspeed-ts/core';
import type { DeepSpeedEngine } from './engine.js';

export interface SaveModelOptions {
  readonly engine: DeepSpeedEngine;
  /** config.json; default: the model's own where it has one. */
  readonly huggingFaceConfig?: Readonly<Record<string, unknown>>;
}

/** Streams the f32 weights of all ranks into rank 0's file. */
export async function saveModel(directory: string, { engine, huggingFaceConfig }: SaveModelOptions): Promise<void> {
  const { model } = engine;
  const config = huggingFaceConfigOf(model, huggingFaceConfig);
  if (engine.rank !== 0) {
    // Gathering is collective: the other ranks take part and drop what they get.
    for await (const _ of engine.weights());
  } else {
    // Weights come unit by unit, in this order.
    const parameters = unitsOf(model).flatMap((unit) => [...unit.parameters]);
    const plan = parameters.map(([name, { shape }]): TensorPlan => ({ name, shape, dtype: 'f32' }));
    await mkdir(directory, { recursive: true });
    await writeSafetensors(join(directory, 'model.safetensors'), plan, engine.weights());
    if (config) await writeJson(join(directory, 'config.json'), config);
  }
  await engine.communicator.barrier();
}

/** What config.json says beside f32 weights; `undefined` for a model that has no such form. */
export function huggingFaceConfigOf(
  model: Module,
  given?: SaveModelOptions['huggingFaceConfig'],
): Readonly<Record<string, unknown>> | undefined {
  const config = given ?? (model instanceof DecoderLM ? model.config.huggingFace : undefined);
  return config && { ...config, dtype: 'float32' };
}

async function writeJson(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, `${JSON.stringify(value, null, 2)}\n`);
  await rename(temporary, path);
}
