import { type FloatDType, type LocalStore, type TensorPlan, WeightFiles } from '@deepspeed-ts/core';
import { companionFiles } from './companions.js';
import type { JsonObject } from './json-file.js';

export interface SavePretrainedOptions {
  /** Larger models become several files with an index; default 5e9. */
  readonly maxShardBytes?: number;
}

/** Bytes that are read from the device and written at a time. */
const BLOCK = 2 ** 24;

/** Writes the weights of a store in its dtype, config.json, and the files of `source` that belong to the model. */
export async function savePretrained(
  directory: string,
  store: LocalStore,
  raw: JsonObject,
  source: string | undefined,
  options: SavePretrainedOptions,
): Promise<void> {
  const values = [...store.stateDict()];
  const plans = values.map(([name, { shape, dtype }]): TensorPlan => ({ name, shape, dtype }));
  const files = new WeightFiles(directory, plans, options);
  try {
    await files.begin();
    for (const [, { device, handle, byteOffset, byteLength }] of values) {
      for (let at = 0; at < byteLength; at += BLOCK)
        await files.write(await device.backend.read(handle, byteOffset + at, Math.min(BLOCK, byteLength - at)));
    }
    await files.finish(configWithDtype(raw, store.dtype), source === undefined ? [] : await companionFiles(source));
  } catch (error) {
    await files.abandon();
    throw error;
  }
}

const names: Readonly<Record<FloatDType, string>> = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' };

/** A config.json for weights of a dtype. Old readers know it as `torch_dtype`, and would go by what was there before. */
export function configWithDtype(raw: JsonObject, dtype: FloatDType): JsonObject {
  return { ...raw, dtype: names[dtype], ...('torch_dtype' in raw && { torch_dtype: names[dtype] }) };
}
