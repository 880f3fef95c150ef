import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { configJson, encode } from '@deepspeed-ts/core';
import { guarded, replaceFile, syncDirectory, writeJson, writeText } from '../checkpoint/files.js';
import type { FileRecord } from '../checkpoint/io/chunks.js';
import { MANIFEST, seal } from '../checkpoint/manifest.js';
import { checkTag, LATEST, partName } from '../checkpoint/names.js';
import { DeepSpeedCheckpoint, statePieces } from './checkpoint.js';
import { DeepSpeedCheckpointError } from './error.js';
import { describe } from './manifest.js';
import { countOf, readF32 } from './pieces.js';
import { type StreamedTensor, writeShards, writeStreamed } from './write.js';

export interface ConvertOptions {
  /** Default: what `latest` names. */
  readonly tag?: string;
  /** A Hugging Face directory to take config.json and the tokenizer from; default: config.json of the checkpoint's directory, if it is there. */
  readonly model?: string;
  /** Compare checksums of all files first; default true. Files written with checksums switched off need false. */
  readonly verify?: boolean;
  readonly onProgress?: (progress: ConvertProgress) => void;
}

export interface ConvertProgress {
  readonly phase: 'read' | 'write';
  /** The file that is being read; while writing, the output. */
  readonly path: string;
  /** Files, or bytes. */
  readonly done: number;
  readonly total: number;
}

export interface Converted {
  /** The checkpoint's directory. */
  readonly path: string;
  readonly tag: string;
  readonly stage: number;
  readonly worldSize: number;
  readonly globalSteps: number;
  readonly parameters: number;
  readonly elements: number;
  readonly states: readonly string[];
  readonly bytes: number;
  /** What of the checkpoint has no place in ours, or is odd. */
  readonly notes: readonly string[];
}

/** What goes along with weights of Hugging Face. */
const COMPANIONS =
  /^(generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$|^(merges\.txt|tokenizer\.model)$/;

/**
 * Turns a checkpoint that DeepSpeed wrote (ZeRO 0 to 3, any number of ranks, or a universal one) into one of ours, which `loadCheckpoint` goes on
 * from and Hugging Face libraries open. Parameters are streamed: no more than a block of one is held. `output` is made, all at once.
 *
 * @throws DeepSpeedCheckpointError, PickleError, TorchFileError, CheckpointError naming the file to blame; then there is no `output`
 */
export async function convertDeepSpeedCheckpoint(input: string, output: string, options: ConvertOptions = {}): Promise<Converted> {
  const target = resolve(output);
  await refuseExisting(target);
  const { onProgress, tag, verify = true } = options;
  const onFile = (path: string, done: number, total: number) => onProgress?.({ phase: 'read', path, done, total });
  using checkpoint = new DeepSpeedCheckpoint(resolve(input), { tag, verify, onFile });
  checkTag(checkpoint.tag);
  const config = modelConfig(input, checkpoint.path, options.model);
  const temporary = join(dirname(target), `.${basename(target)}.converting-${process.pid}-${randomBytes(4).toString('hex')}`);
  try {
    await guarded(temporary, () => mkdir(join(temporary, checkpoint.tag), { recursive: true }));
    const converted = await write(checkpoint, temporary, target, { ...options, ...(config && { config }) });
    await guarded(target, () => rename(temporary, target));
    await syncDirectory(dirname(target));
    return converted;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw error;
  }
}

async function write(
  checkpoint: DeepSpeedCheckpoint,
  root: string,
  target: string,
  { onProgress, model, config }: ConvertOptions & { config?: Record<string, unknown> },
): Promise<Converted> {
  const { parameters, stateNames, tag } = checkpoint;
  const path = join(root, tag);
  const weights = parameters.map(({ name, shape, weights }): StreamedTensor => {
    return { plan: { name, shape, dtype: 'f32' }, read: () => readF32(weights) };
  });
  const states = parameters.flatMap((parameter) =>
    stateNames.map((kind): StreamedTensor => {
      const pieces = statePieces(parameter, kind);
      return { plan: { name: partName(kind, parameter.name, 0), shape: [countOf(pieces)], dtype: 'f32' }, read: () => readF32(pieces) };
    }),
  );
  const elements = parameters.reduce((sum, { weights }) => sum + countOf(weights), 0);
  const total = 4 * elements * (1 + stateNames.length);
  let done = 0;
  const onBytes = (count: number) => {
    done += count;
    onProgress?.({ phase: 'write', path: target, done, total });
  };
  const written = await writeShards(path, 'model', weights, onBytes);
  const optimizer = await writeShards(path, 'optimizer', states, onBytes);
  const files: Record<string, FileRecord> = { ...written.records, ...optimizer.records };
  if (Object.keys(written.records).length > 1) {
    const index = 'model.safetensors.index.json';
    files[index] = await writeJson(join(path, index), { metadata: { total_size: written.bytes }, weight_map: written.fileOf });
  }
  const { body, notes } = describe(checkpoint);
  if (config) files['config.json'] = await writeText(join(path, 'config.json'), configJson({ ...config, dtype: 'float32' }));
  else
    notes.push(
      'there is no config.json beside the checkpoint; Hugging Face libraries need one: name the directory of the model with --model',
    );
  if (model) for (const name of await readdir(model)) if (COMPANIONS.test(name)) await copyFile(join(model, name), join(path, name));
  if (checkpoint.buffers.size > 0) {
    await writeBuffers(join(path, 'buffers.safetensors'), checkpoint);
    notes.push(
      `buffers are no parameters, and are not loaded; they are in buffers.safetensors: ${[...checkpoint.buffers.keys()].join(', ')}`,
    );
  }
  await writeJson(join(path, MANIFEST), seal({ ...body, files }));
  await syncDirectory(path);
  await replaceFile(join(root, LATEST), tag);
  await syncDirectory(root);
  const { stage, worldSize, globalSteps } = checkpoint;
  const bytes = Object.values(files).reduce((sum, { size }) => sum + size, 0);
  return {
    path: join(target, tag),
    tag,
    stage,
    worldSize,
    globalSteps,
    parameters: parameters.length,
    elements,
    states: stateNames,
    bytes,
    notes,
  };
}

/** Not among the manifest's files: what resumes takes parameters alone. */
async function writeBuffers(path: string, { buffers }: DeepSpeedCheckpoint): Promise<void> {
  const tensors = [...buffers].map(([name, tensor]): StreamedTensor => {
    const { dtype } = tensor.values(0, 0);
    return { plan: { name, shape: tensor.shape, dtype }, read: () => [encode({ ...tensor.values(), dtype })] };
  });
  await writeStreamed(path, tensors, () => {});
}

function modelConfig(input: string, path: string, model: string | undefined): Record<string, unknown> | undefined {
  const candidates = model === undefined ? [join(path, 'config.json'), join(input, 'config.json')] : [join(model, 'config.json')];
  const found = candidates.find((file) => existsSync(file));
  if (found === undefined) {
    if (model !== undefined)
      throw new DeepSpeedCheckpointError(candidates[0]!, 'there is no such file: --model names a Hugging Face directory');
    return undefined;
  }
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(found, 'utf8'));
  } catch (cause) {
    throw new DeepSpeedCheckpointError(found, `is not JSON (${(cause as Error).message})`, { cause });
  }
  if (typeof config === 'object' && config !== null && 'model_type' in config) return config as Record<string, unknown>;
  if (model !== undefined) throw new DeepSpeedCheckpointError(found, 'has no model_type: not the config.json of a Hugging Face model');
  return undefined;
}

async function refuseExisting(target: string): Promise<void> {
  if (!existsSync(target)) {
    const parent = dirname(target);
    if (!existsSync(parent) || !statSync(parent).isDirectory())
      throw new DeepSpeedCheckpointError(parent, 'there is no such directory to write into');
    return;
  }
  if (!statSync(target).isDirectory() || (await readdir(target)).length > 0)
    throw new DeepSpeedCheckpointError(target, 'exists already; name another output, nothing was changed');
}
