import { isDeepStrictEqual } from 'node:util';
import { type Communicator, namedParameters } from '@deepspeed-ts/core';
import { GRADIENT } from '@deepspeed-ts/zero';
import { CheckpointError } from './error.js';
import type { FileRecord } from './io/chunks.js';
import type { FileThreads } from './io/threads.js';
import { type Manifest, readManifest } from './manifest.js';
import { assertSame, compare, type Differences } from './match.js';
import type { LoadCheckpointOptions } from './options.js';
import type { CheckpointedParts } from './parts.js';
import { type Counters, countersOf } from './progress.js';
import { CheckpointReader } from './reader.js';
import { checkRename, renamer } from './rename.js';
import { verify } from './verify.js';

/** With `moduleOnly` there is no optimizer either. */
export type ResolvedLoadOptions = LoadCheckpointOptions & Required<Pick<LoadCheckpointOptions, 'optimizer' | 'moduleOnly'>>;

/** A checkpoint that is whole and fits. Whoever has it closes its reader. */
export interface OpenedCheckpoint {
  readonly reader: CheckpointReader;
  readonly differences: Differences;
  readonly next: Counters;
}

/** Makes sure that everything that will be read is what was written. */
export async function verifyFiles(communicator: Communicator, path: string, optimizer: boolean, threads: FileThreads): Promise<Manifest> {
  const manifest = await readManifest(path);
  await verify(communicator, path, filesOf(manifest, optimizer), threads);
  return manifest;
}

/** Opens and checks everything that will be read, so that nothing is taken over from a checkpoint that does not fit. */
export function openCheckpoint(parts: CheckpointedParts, path: string, manifest: Manifest, options: ResolvedLoadOptions): OpenedCheckpoint {
  const { model, store, config, scheduler } = parts;
  const names = filesOf(manifest, options.optimizer).map(([name]) => name);
  const rename = renamer(options.rename);
  const reader = new CheckpointReader(path, names, rename);
  try {
    checkRename(options.rename, reader.originalNames, path);
    const excluded = new Set(manifest.excluded_weights.map(rename));
    const differences = compare(model, reader.weights, excluded);
    if (options.strict ?? true) assertSame(differences, model, reader.weights, path);
    for (const { name } of differences.mismatched) reader.ignore(name);
    const kinds = ['weights', ...(options.optimizer ? store.stateNames : [])];
    const got = manifest.optimizer.states;
    if (options.optimizer && !isDeepStrictEqual([...got].sort(), [...store.stateNames].sort())) {
      const list = (states: readonly string[]) => states.join(', ') || 'none';
      const text = `${path} was saved with another optimizer: expected states ${list(store.stateNames)}, got ${list(got)}; load it with { optimizer: false }`;
      throw new CheckpointError('ERR_CHECKPOINT_MISMATCH', text, path);
    }
    if (!options.moduleOnly && (options.scheduler ?? true) && scheduler && !manifest.scheduler) {
      const text = `${path} was saved without a learning-rate schedule, the config has one; load it with { scheduler: false }`;
      throw new CheckpointError('ERR_CHECKPOINT_MISMATCH', text, path);
    }
    for (const [name, parameter] of namedParameters(model)) {
      // A frozen one may have had state when it was saved; it has none now.
      const wanted = parameter.requiresGrad ? kinds : ['weights'];
      if (reader.has('weights', name)) for (const kind of wanted) reader.check(kind, name, store.stateSize(kind, name, parameter));
      if (options.optimizer && reader.has(GRADIENT, name)) reader.check(GRADIENT, name, parameter.numel);
    }
    return { reader, differences, next: countersOf(manifest, config, store.communicator.size, options.optimizer, path) };
  } catch (error) {
    reader.close();
    throw error;
  }
}

/** What is read: with weights alone, optimizer files need not even be there. */
function filesOf({ files }: Manifest, optimizer: boolean): [name: string, record: FileRecord][] {
  return Object.entries(files).filter(([name]) => optimizer || !name.startsWith('optimizer-'));
}
