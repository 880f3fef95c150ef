import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DataLoaderState } from '../data/index.js';
import type { ParameterGroup } from '../engine/optimizer.js';
import type { LossScalerState } from '../precision/index.js';
import type { SchedulerState } from '../schedules/scheduler.js';
import { CheckpointError } from './error.js';
import { corrupt, jsonText } from './files.js';
import type { SavedFp8State } from './fp8.js';
import { CHUNK, type FileRecord } from './io/chunks.js';

export const MANIFEST = 'deepspeed-ts.json';

const FORMAT = 'deepspeed-ts checkpoint';
const VERSION = 3;

/** Where a training stands. */
export interface Progress {
  readonly global_steps: number;
  /** Samples of all ranks in finished steps, and micro-batches of a rank in them. Early checkpoints have neither. */
  readonly global_samples?: number;
  readonly micro_steps?: number;
  /** Samples of all ranks in the running step, whose gradients are accumulated; 0 between steps. */
  readonly samples_in_step: number;
  readonly train_batch_size: number;
  readonly skipped_steps: number;
  /** The loss scale of the gradients of the running step. */
  readonly backward_scale: number | null;
  /** Of random numbers; those of a micro-batch follow from it and from how many came before. */
  readonly seed: number;
}

export interface ManifestBody extends Progress {
  readonly tag: string;
  /** Tells two checkpoints of one tag apart. */
  readonly id: string;
  readonly saved_at: string;
  /** How it was trained; it may be loaded otherwise. */
  readonly world_size: number;
  readonly zero_stage: number;
  readonly dtype: string;
  readonly optimizer: {
    readonly steps: number;
    readonly states: readonly string[];
    /** Settings in force, to look at; a resumed run takes its own from its config. */
    readonly groups: readonly ParameterGroup[];
  };
  readonly scheduler: SchedulerState | null;
  readonly loss_scaler: LossScalerState | null;
  /** Of 8-bit training. */
  readonly fp8?: SavedFp8State | null;
  readonly dataloader: DataLoaderState | null;
  readonly client_state: unknown;
  /** Frozen parameters whose weights were left out on purpose. */
  readonly excluded_weights: readonly string[];
  readonly files: Readonly<Record<string, FileRecord>>;
}

/** What `deepspeed-ts.json` holds. */
export interface Manifest extends ManifestBody {
  readonly format: typeof FORMAT;
  readonly version: number;
  /** How many bytes of a file each of its checksums is of. */
  readonly chunk_bytes: number;
  /** Sha-256 of the rest as JSON without white space. */
  readonly checksum: string;
}

export function seal(body: ManifestBody): Manifest {
  const content = { format: FORMAT, version: VERSION, chunk_bytes: CHUNK, ...body } as const;
  return { ...content, checksum: checksumOf(content) };
}

/** @throws CheckpointError where it is missing, damaged, or of a format that this release does not know */
export async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, MANIFEST);
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) {
    throw new CheckpointError('ERR_CHECKPOINT_MISSING', `${path} is missing: ${directory} is not a checkpoint to resume from`, path);
  }
  let manifest: Manifest;
  try {
    manifest = JSON.parse(text) as Manifest;
  } catch (cause) {
    throw corrupt(path, (cause as Error).message);
  }
  const { checksum, ...content } = manifest;
  // Also where it would mean the same, as with an E for an e: whatever changed one letter has changed others elsewhere.
  if (text !== jsonText(manifest) || checksumOf(content) !== checksum) throw corrupt(path, 'its contents do not fit its checksum');
  if (content.format !== FORMAT || content.version !== VERSION) {
    const got = `'${content.format}', version ${content.version}`;
    throw new CheckpointError(
      'ERR_CHECKPOINT_MISMATCH',
      `${path}: expected '${FORMAT}', version ${VERSION}, got ${got}; load it with the release that wrote it`,
      path,
    );
  }
  return manifest;
}

function checksumOf(content: unknown): string {
  // As it reads back: JSON has no undefined, and one zero.
  return createHash('sha256')
    .update(JSON.stringify(JSON.parse(JSON.stringify(content))))
    .digest('hex');
}
