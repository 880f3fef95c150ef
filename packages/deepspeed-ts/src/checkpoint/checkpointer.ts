import { randomBytes } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { namedParameters, type Parameter } from '@deepspeed-ts/core';
import { PeftModel } from '@deepspeed-ts/transformers';
import { companionsOf, huggingFaceConfigOf } from '../engine/save-model.js';
import { DynamicLossScaler } from '../precision/index.js';
import { agree } from './agreement.js';
import { begin, commit, type Peer } from './commit.js';
import { CheckpointDirectory } from './directory.js';
import { CheckpointError } from './error.js';
import { loadFp8, saveFp8 } from './fp8.js';
import { FileThreads } from './io/threads.js';
import type { Manifest } from './manifest.js';
import { checkTag, savingName } from './names.js';
import { type OpenedCheckpoint, openCheckpoint, verifyFiles } from './opened.js';
import { type LoadCheckpointOptions, type LoadedCheckpoint, type SaveCheckpointOptions, SavedCheckpoint } from './options.js';
import type { CheckpointedParts } from './parts.js';
import { type Counters, progressOf } from './progress.js';
import { type Snapshot, takeSnapshot } from './snapshot.js';

/** Saves and loads checkpoints of an engine. A call here is made by every rank, and fails on every rank or on none. */
export class Checkpointer {
  readonly #parts: CheckpointedParts;
  readonly #threads = new FileThreads();
  #last: SavedCheckpoint | undefined;

  constructor(parts: CheckpointedParts) {
    this.#parts = parts;
  }

  async save(path: string, options: SaveCheckpointOptions = {}): Promise<SavedCheckpoint> {
    const { store, counters, model, config } = this.#parts;
    const { rank } = store.communicator;
    const tag = options.tag ?? `global_step${counters.get().globalSteps}`;
    const root = absolute(path);
    const directory = new CheckpointDirectory(root);
    const id = randomBytes(8).toString('hex');
    const peer: Peer = { host: hostname(), pid: process.pid };
    const saving = savingName(tag, id);
    const all = await this.#agree(async () => {
      // One at a time, and its error first: the state of the disk is unclear until it ends.
      await this.settle();
      checkPath(path);
      this.#check(tag, options);
      if (rank === 0) {
        await directory.prepare();
        await begin(directory, saving);
      }
      return { tag, id, saving, peer };
    })
      .then((ranks) => this.#settleTag(ranks))
      .then((ranks) => this.#assertVisible(join(root, ranks[0]!.saving), ranks))
      .catch(async (error: unknown) => {
        if (rank === 0) await rm(join(root, saving), { recursive: true, force: true }).catch(() => {});
        throw error;
      });
    const first = all[0]!;
    // Adapters are saved without the base that came from files and will again.
    const { excludeFrozen = model instanceof PeftModel && model.weights !== undefined } = options;
    const { fp8 } = this.#parts;
    const scales = fp8 && rank === 0 ? saveFp8(await fp8.state()) : null;
    const started = performance.now();
    const snapshot = await takeSnapshot(store, {
      directory: join(root, first.saving),
      wanted: (parameter) => !isExcluded(parameter, excludeFrozen),
      threads: this.#threads,
    });
    const finished = commit({
      directory,
      saving: first.saving,
      rank,
      peers: all.map(({ peer }) => peer),
      snapshot,
      threads: this.#threads,
      manifest: {
        ...this.#describe(first.tag, excludeFrozen),
        fp8: scales,
        id: first.id,
        client_state: structuredClone(options.clientState ?? null),
      },
      huggingFaceConfig: huggingFaceConfigOf(model, undefined, store.masterDtype),
      extraFiles: options.files ?? {},
      companions: await companionsOf(model),
      saveLatest: options.saveLatest ?? true,
      keepLast: options.keepLast ?? config.checkpoint.keep_last ?? undefined,
    });
    if (config.checkpoint.writer?.show_statistics && rank === 0) this.#tell(first.tag, snapshot, started, finished);
    this.#last = new SavedCheckpoint(join(root, first.tag), finished);
    return this.#last;
  }

  async load(path: string, options: LoadCheckpointOptions = {}): Promise<LoadedCheckpoint | undefined> {
    const { store } = this.#parts;
    const { moduleOnly = false } = options;
    const optimizer = !moduleOnly && (options.optimizer ?? true);
    const [found] = await this.#agree(async () => {
      await this.settle();
      checkPath(path);
      return store.communicator.rank === 0 ? ((await new CheckpointDirectory(absolute(path)).find(options.tag)) ?? null) : null;
    });
    if (found == null) return undefined;

    let opened: OpenedCheckpoint | undefined;
    try {
      let manifest!: Manifest;
      await this.#agree(async () => {
        manifest = await verifyFiles(store.communicator, found, optimizer, this.#threads);
      });
      await this.#agree(async () => {
        opened = openCheckpoint(this.#parts, found, manifest, { ...options, optimizer, moduleOnly });
      });
      const { reader, next, differences } = opened!;
      // May refuse, the same on every rank, so it comes before anything has changed.
      if (!moduleOnly) this.#resume(manifest, next, options);
      await store.loadState(reader, { steps: optimizer ? manifest.optimizer.steps : undefined });
      return { path: found, clientState: manifest.client_state, ...differences };
    } finally {
      opened?.reader.close();
    }
  }

  /** Waits for the save that is under way. @throws its error, unless it was told already */
  async settle(): Promise<void> {
    const last = this.#last;
    this.#last = undefined;
    await last?.settle();
  }

  /** Waits as {@link settle} does, and leaves no thread behind. */
  async dispose(): Promise<void> {
    await this.settle().finally(() => this.#threads.close());
  }

  #agree<T>(body: () => Promise<T>): Promise<T[]> {
    return agree(this.#parts.store.communicator, this.#parts.device, body);
  }

  /** Ranks meet in a directory: on a host that doesn't have it they would wait for nothing. */
  async #assertVisible<T>(path: string, value: T): Promise<T> {
    await this.#agree(async () => {
      if (await stat(path).catch(() => undefined)) return;
      const text = `${path}, made by rank 0, is not to be seen here: all ranks must save to one directory of one file system`;
      throw new CheckpointError('ERR_CHECKPOINT_WRITE', text, path);
    });
    return value;
  }

  /** Tags name directories, so ranks with two of them would wait for each other in two places: all take rank 0's, if they may differ at all. */
  #settleTag<T extends { tag: string }>(all: T[]): T[] {
    const { config, store } = this.#parts;
    const other = all.findIndex(({ tag }) => tag !== all[0]!.tag);
    const validation = config.checkpoint.tag_validation;
    if (other < 0 || validation === 'Ignore') return all;
    const text = `tag: expected the same on every rank, got '${all[0]!.tag}' on rank 0 and '${all[other]!.tag}' on rank ${other}`;
    if (validation === 'Fail') throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', text, all[other]!.tag);
    if (store.communicator.rank === 0) console.warn(`[saveCheckpoint] ${text}; that of rank 0 is taken`);
    return all;
  }

  #check(tag: string, { clientState, keepLast, files = {} }: SaveCheckpointOptions): void {
    checkTag(tag);
    for (const name of Object.keys(files)) checkFileName(name, tag);
    if (keepLast !== undefined && !(Number.isInteger(keepLast) && keepLast >= 1)) {
      throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', `keepLast: expected an integer >= 1, got ${keepLast}`, tag);
    }
    if (clientState !== undefined && !survivesJson(clientState)) {
      const expected = 'expected only what JSON can hold: finite numbers, strings, booleans, null, arrays and plain objects';
      throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', `clientState: ${expected}; it would not come back as it is`, tag);
    }
    const { betweenBackwardAndStep } = this.#parts.counters.get();
    if (this.#parts.store.hasUnreduced) {
      throw new CheckpointError(
        'ERR_CHECKPOINT_ARGUMENT',
        'saveCheckpoint was called with gradients that noSync() has kept on this rank; save after the step that they belong to',
        tag,
      );
    }
    if (betweenBackwardAndStep) {
      throw new CheckpointError(
        'ERR_CHECKPOINT_ARGUMENT',
        'saveCheckpoint was called between backward() and step(); call it after step()',
        tag,
      );
    }
  }

  /** Takes over all but weights and optimizer state. */
  #resume(manifest: Manifest, next: Counters, options: LoadCheckpointOptions): void {
    const { scheduler, optimizer, lossScaler, fp8, dataloader, counters } = this.#parts;
    if (manifest.dataloader) dataloader?.loadStateDict(manifest.dataloader);
    if (scheduler && manifest.scheduler && (options.scheduler ?? true)) {
      scheduler.loadStateDict(manifest.scheduler);
      optimizer.follow(scheduler);
    }
    if (manifest.loss_scaler && lossScaler instanceof DynamicLossScaler) lossScaler.loadStateDict(manifest.loss_scaler);
    if (manifest.fp8) fp8?.load(loadFp8(manifest.fp8));
    counters.set(next);
  }

  #tell(tag: string, { files }: Snapshot, started: number, finished: Promise<void>): void {
    const seconds = () => (performance.now() - started) / 1000;
    const copied = seconds();
    const gigabytes = [...files.values()].reduce((sum, { size }) => sum + size, 0) / 1e9;
    const done = () => {
      const rate = (gigabytes / seconds()).toPrecision(3);
      console.log(
        `[saveCheckpoint] ${tag}: ${gigabytes.toPrecision(3)} GB of rank 0, copied in ${copied.toFixed(3)} s, safe after ${seconds().toFixed(3)} s, ${rate} GB/s`,
      );
    };
    finished.then(done, () => {});
  }

  get #progress() {
    const { counters, config, store } = this.#parts;
    return progressOf(counters.get(), config, store.communicator.size);
  }

  #describe(tag: string, excludeFrozen: boolean) {
    const { model, config, store, optimizer, scheduler, lossScaler, dataloader } = this.#parts;
    const excluded = [...namedParameters(model)].filter(([, parameter]) => isExcluded(parameter, excludeFrozen)).map(([name]) => name);
    return {
      tag,
      saved_at: new Date().toISOString(),
      ...this.#progress,
      world_size: store.communicator.size,
      zero_stage: config.zero_optimization.stage,
      dtype: store.dtype,
      optimizer: { steps: store.steps, states: store.stateNames, groups: optimizer.groups },
      scheduler: scheduler?.stateDict() ?? null,
      loss_scaler: lossScaler instanceof DynamicLossScaler ? lossScaler.stateDict() : null,
      dataloader: dataloader?.stateDict() ?? null,
      excluded_weights: excluded,
    };
  }
}

/** Codes are never saved: they come from the model that training began with, as they did in the first place. */
function isExcluded({ requiresGrad, storage }: Parameter, excludeFrozen: boolean): boolean {
  return !requiresGrad && (excludeFrozen || storage !== undefined);
}

/** A save goes on when the working directory may have changed. Leaves what is no path to {@link checkPath}. */
function absolute(path: string): string {
  return typeof path === 'string' ? resolve(path) : path;
}

function checkPath(path: string): void {
  if (typeof path === 'string' && path !== '') return;
  throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', `directory: expected a path, got ${JSON.stringify(path)}`, String(path));
}

/** Of a file that the caller adds: beside those of a checkpoint, in its folder. */
function checkFileName(name: string, tag: string): void {
  if (/^[\w-][\w.-]*$/.test(name) && !/[.]safetensors$|^(config|deepspeed-ts|model[.]safetensors[.]index)[.]json$/.test(name)) return;
  const expected = 'expected names of letters, digits, _ - and . that no file of a checkpoint has';
  throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', `files: ${expected}, got ${JSON.stringify(name)}`, tag);
}

function survivesJson(value: unknown): boolean {
  try {
    return isDeepStrictEqual(JSON.parse(JSON.stringify(value)), value);
  } catch {
    return false;
  }
}
