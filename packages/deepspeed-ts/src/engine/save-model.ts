import {
  bytesOf,
  type CompanionFile,
  type Device,
  type DType,
  decode,
  encode,
  type FloatDType,
  type Module,
  narrowF32,
  type TensorPlan,
  WeightFiles,
} from '@deepspeed-ts/core';
import { configWithDtype, DecoderLM, type PretrainedModel } from '@deepspeed-ts/transformers';
import type { OptimizerOptions, ZeroStore } from '@deepspeed-ts/zero';
import { agree } from '../checkpoint/agreement.js';
import { CheckpointError } from '../checkpoint/error.js';
import { guarded } from '../checkpoint/files.js';

export interface SaveModelOptions {
  /** config.json; default: the model's own where it has one. */
  readonly huggingFaceConfig?: Readonly<Record<string, unknown>> | undefined;
  /** Larger models become several files with an index; default 5e9. */
  readonly maxShardBytes?: number | undefined;
}

export interface Save16bitModelOptions extends SaveModelOptions {
  /** Default: what the run computes in; bf16 for one in f32. */
  readonly dtype?: 'bf16' | 'f16' | undefined;
}

export interface SavedModel {
  readonly model: Module;
  readonly device: Device;
  readonly store: ZeroStore<OptimizerOptions>;
}

/** Elements that are read from the device and written at a time. */
const BLOCK = 2 ** 22;

/** Streams the weights of all ranks into rank 0's files. Every rank calls it, and it fails on every rank or on none. */
export async function saveModel(
  directory: string,
  { model, device, store }: SavedModel,
  dtype: FloatDType,
  { huggingFaceConfig, maxShardBytes }: SaveModelOptions = {},
): Promise<void> {
  const { communicator, layouts } = store;
  const writes = communicator.rank === 0;
  const plans = layouts.flatMap(({ placements }) =>
    placements.map(({ name, parameter }): TensorPlan => ({ name, shape: parameter.shape, dtype })),
  );
  const files = new WeightFiles(directory, plans, { maxShardBytes, guarded });
  let failure: unknown;
  const attempt = async (body: () => Promise<void>) => {
    if (!writes || failure !== undefined) return;
    try {
      await body();
    } catch (error) {
      failure = error;
    }
  };
  await attempt(() => files.begin());
  try {
    // Gathering is collective: whoever does not write, or has failed to, still takes part.
    for await (const { placement, dtype: from, read } of store.exportUnits('weights', () => writes && failure === undefined)) {
      await attempt(async () => {
        const { name, numel } = placement;
        for (let at = 0; at < numel; at += BLOCK) {
          const count = Math.min(BLOCK, numel - at);
          await files.write(convert(await read(at * bytesOf(from), count * bytesOf(from)), from, dtype, name));
        }
      });
    }
  } catch (error) {
    await files.abandon();
    throw error;
  }
  await attempt(async () => files.finish(huggingFaceConfigOf(model, huggingFaceConfig, dtype), await companionsOf(model)));
  await agree(communicator, device, async () => {
    if (failure === undefined) return;
    await files.abandon();
    throw failure;
  });
}

/** What config.json says beside weights of a dtype; `undefined` for a model that has no such form. */
export function huggingFaceConfigOf(
  model: Module,
  given?: SaveModelOptions['huggingFaceConfig'],
  dtype: FloatDType = 'f32',
): Readonly<Record<string, unknown>> | undefined {
  const config = given ?? (model instanceof DecoderLM ? model.config.huggingFace : undefined);
  return config && configWithDtype(config, dtype);
}

/** What goes beside weights and config.json, of a model that says so because it came from a directory. */
export async function companionsOf(model: Module & Partial<Pick<PretrainedModel, 'companionFiles'>>): Promise<CompanionFile[]> {
  return model.companionFiles?.() ?? [];
}

/** @throws CheckpointError naming the parameter, where a finite weight is beyond what f16 can hold */
function convert(bytes: Uint8Array, from: DType, to: FloatDType, name: string): Uint8Array {
  if (from === to) return bytes;
  if (from !== 'f32' || to === 'f32') {
    const { shape, data } = decode(bytes, [bytes.length / bytesOf(from)], from);
    return encode({ shape, data, dtype: to });
  }
  const values = new Float32Array(bytes.slice().buffer);
  const narrow = narrowF32(values, to);
  if (to === 'f16') {
    const lost = values.findIndex((value, i) => Number.isFinite(value) && (narrow[i]! & 0x7fff) === 0x7c00);
    if (lost >= 0) {
      const text = `${name} has a weight of ${values[lost]}, which f16 can't hold (its largest is 65504); save with { dtype: 'bf16' }`;
      throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', text, name);
    }
  }
  return new Uint8Array(narrow.buffer, narrow.byteOffset, narrow.byteLength);
}
