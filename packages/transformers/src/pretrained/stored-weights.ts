import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DType, Shape, Tensor } from '@deepspeed-ts/core';
import { PretrainedError } from './errors.js';
import { readJsonFile } from './json-file.js';
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

/**
 * The files of weights in a Hugging Face directory: one, or those that an index names. Nothing but headers is read.
 *
 * @throws PretrainedError where there are none, or the index names one that is not there
 */
export async function findWeights(directory: string): Promise<WeightFile[]> {
  for (const { single, open } of KINDS) {
    const name = `${single}.index.json`;
    const index = await readJsonFile(join(directory, name));
    if (index) return (await shardsOf(directory, name, index)).map(open);
    if (existsSync(join(directory, single))) return [open(join(directory, single))];
  }
  throw new PretrainedError(
    'ERR_PRETRAINED_MISSING',
    directory,
    `there are no weights: expected ${KINDS.map(({ single }) => `${single} or ${single}.index.json`).join(', ')}; found ${readdirSync(directory).slice(0, 10).join(', ') || 'nothing'}`,
  );
}

/** Paths of the files that an index names, each once. */
async function shardsOf(directory: string, name: string, index: Readonly<Record<string, unknown>>): Promise<string[]> {
  const path = join(directory, name);
  const map = index.weight_map;
  if (typeof map !== 'object' || map === null)
    throw new PretrainedError('ERR_PRETRAINED_FILE', path, 'has no weight_map of tensor names to files');
  const files = [...new Set(Object.values(map as Record<string, string>))].sort();
  const missing = files.filter((file) => !existsSync(join(directory, file)));
  if (missing.length > 0) {
    const text = `names ${missing.length} of ${files.length} files that are not there: ${missing.slice(0, 5).join(', ')}; was the download complete?`;
    throw new PretrainedError('ERR_PRETRAINED_MISSING', path, text);
  }
  return files.map((file) => join(directory, file));
}
