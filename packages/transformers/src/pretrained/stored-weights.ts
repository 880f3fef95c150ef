import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DType, Shape, Tensor } from '@deepspeed-ts/core';
import { PretrainedError } from './errors.js';
import { type JsonObject, readJsonFile } from './json-file.js';
import { SafetensorsWeights } from './safetensors-weights.js';
import { TorchWeights } from './torch-weights.js';

/** A tensor in a file of weights. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly file: WeightFile;
}

/** A file of weights. Its list of tensors is read at once; `read` opens it when needed, `close` closes it again. */
export interface WeightFile {
  readonly path: string;
  readonly tensors: readonly StoredTensor[];
  read(name: string, start: number, target: Tensor): Promise<void>;
  close(): void;
}

/** Kinds of files of weights; a directory that has both is read from the first. */
const KINDS = [
  { single: 'model.safetensors', open: (path: string): WeightFile => new SafetensorsWeights(path) },
  { single: 'pytorch_model.bin', open: (path: string): WeightFile => new TorchWeights(path) },
] as const;

/** Of the files of a directory, the one to begin with: weights, or an index that names their files. */
export function weightsIn(names: readonly string[]): string | undefined {
  return KINDS.flatMap(({ single }) => [`${single}.index.json`, single]).find((name) => names.includes(name));
}

/**
 * The files of weights in a Hugging Face directory: one, or those that an index names. Nothing but headers is read.
 *
 * @throws PretrainedError where there are none, or the index names one that is not there
 */
export async function findWeights(directory: string): Promise<WeightFile[]> {
  const names = readdirSync(directory);
  const first = weightsIn(names);
  if (first === undefined) {
    const expected = KINDS.map(({ single }) => `${single} or ${single}.index.json`).join(', ');
    const text = `there are no weights: expected ${expected}; found ${names.slice(0, 10).join(', ') || 'nothing'}`;
    throw new PretrainedError('ERR_PRETRAINED_MISSING', directory, text);
  }
  const { open } = KINDS.find(({ single }) => first.startsWith(single))!;
  const path = join(directory, first);
  if (!first.endsWith('.index.json')) return [open(path)];
  const files = shardsIn(path, (await readJsonFile(path))!);
  const missing = files.filter((file) => !existsSync(join(directory, file)));
  if (missing.length > 0) {
    const text = `names ${missing.length} of ${files.length} files that are not there: ${missing.slice(0, 5).join(', ')}; was the download complete?`;
    throw new PretrainedError('ERR_PRETRAINED_MISSING', path, text);
  }
  return files.map((file) => open(join(directory, file)));
}

/** The files that an index names, each once. @throws PretrainedError where it is no such index */
export function shardsIn(path: string, index: JsonObject): string[] {
  const map = index.weight_map;
  if (typeof map !== 'object' || map === null)
    throw new PretrainedError('ERR_PRETRAINED_FILE', path, 'has no weight_map of tensor names to files');
  return [...new Set(Object.values(map as Record<string, string>))].sort();
}
