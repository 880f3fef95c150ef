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
  type Parameter,
  type TensorPlan,
  WeightFiles,
  type WeightFilesOptions,
} from '@deepspeed-ts/core';
import { configWithDtype, decoderOf, PeftModel, type PretrainedModel } from '@deepspeed-ts/transformers';
import type { OptimizerOptions, Placement, UnitLayout, ZeroStore } from '@deepspeed-ts/zero';
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

/**
 * Streams the weights of all ranks into rank 0's files: of a model with adapters what is trained of it, as PEFT has it. Every rank calls it, and it
 * fails on every rank or on none.
 */
export async function saveModel(
  directory: string,
  { model, device, store }: SavedModel,
  dtype: FloatDType,
  { huggingFaceConfig, maxShardBytes }: SaveModelOptions = {},
): Promise<void> {
  const { communicator, layouts } = store;
  const writes = communicator.rank === 0;
  const form = formOf(model);
  const plans = layouts.flatMap(({ placements }) =>
    placements.flatMap(({ name, parameter }): TensorPlan[] => {
      const saved = form.nameOf(name, parameter);
      return saved === undefined ? [] : [{ name: saved, shape: parameter.shape, dtype }];
    }),
  );
  const files = new WeightFiles(directory, plans, { maxShardBytes, guarded, names: form.files });
  const isWanted = ({ name, parameter }: Placement) => form.nameOf(name, parameter) !== undefined;
  const isWritten = ({ placements }: UnitLayout) => writes && failure === undefined && placements.some(isWanted);
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
    for await (const { placement, dtype: from, read } of store.exportUnits('weights', isWritten)) {
      if (!isWanted(placement)) continue;
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
  const config = huggingFaceConfig ?? form.config;
  await attempt(async () => files.finish(config && form.withDtype(config, dtype), await companionsOf(model)));
  await agree(communicator, device, async () => {
    if (failure === undefined) return;
    await files.abandon();
    throw failure;
  });
}

/** What a model is saved as. */
interface SavedForm {
  /** `undefined` leaves a parameter out. */
  nameOf(name: string, parameter: Parameter): string | undefined;
  readonly files?: WeightFilesOptions['names'];
  readonly config: Readonly<Record<string, unknown>> | undefined;
  withDtype(config: Readonly<Record<string, unknown>>, dtype: FloatDType): Readonly<Record<string, unknown>>;
}

function formOf(model: Module): SavedForm {
  if (!(model instanceof PeftModel)) {
    return { nameOf: (name) => name, config: decoderOf(model)?.config.huggingFace, withDtype: configWithDtype };
  }
  const names = new Map([...model.savedParameters()].map(([name, parameter]) => [parameter, name]));
  return {
    nameOf: (_, parameter) => names.get(parameter),
    files: { weights: 'adapter_model', config: 'adapter_config.json' },
    config: model.savedConfig(),
    withDtype: (config) => config,
  };
}

/** What config.json says beside weights of a dtype; `undefined` for a model that has no such form. */
export function huggingFaceConfigOf(
  model: Module,
  given?: SaveModelOptions['huggingFaceConfig'],
  dtype: FloatDType = 'f32',
): Readonly<Record<string, unknown>> | undefined {
  const config = given ?? decoderOf(model)?.config.huggingFace;
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
