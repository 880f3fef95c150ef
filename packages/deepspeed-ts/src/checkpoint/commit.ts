import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CompanionFile, configJson } from '@deepspeed-ts/core';
import { errorOf, type Problem, problemOf } from './agreement.js';
import type { CheckpointDirectory } from './directory.js';
import { CheckpointError, writeError } from './error.js';
import { copyNew, guarded, replaceFile, syncDirectory, writeJson, writeText } from './files.js';
import type { FileRecord } from './io/chunks.js';
import type { FileThreads } from './io/threads.js';
import { MANIFEST, type ManifestBody, readManifest, seal } from './manifest.js';
import { isAlive } from './names.js';
import type { Snapshot } from './snapshot.js';

/** Where a rank's process runs, so that others on its host notice when it has gone. */
export interface Peer {
  readonly host: string;
  readonly pid: number;
}

/** A save that has its snapshot and is to become a checkpoint. */
export interface Commit {
  readonly directory: CheckpointDirectory;
  /** The name it is written under. */
  readonly saving: string;
  readonly rank: number;
  readonly peers: readonly Peer[];
  readonly snapshot: Snapshot;
  /** What writes it. */
  readonly threads: FileThreads;
  /** The manifest but for the files. */
  readonly manifest: Omit<ManifestBody, 'files'>;
  /** config.json, where the model has one. */
  readonly huggingFaceConfig: Readonly<Record<string, unknown>> | undefined;
  /** More small files, by name. */
  readonly extraFiles: Readonly<Record<string, string>>;
  /** Files that go beside it, such as the tokenizer's. */
  readonly companions: readonly CompanionFile[];
  readonly saveLatest: boolean;
  readonly keepLast: number | undefined;
}

type Report = { files: Record<string, FileRecord> } | { problem: Problem };

const FAILED = 'failed.json';
const reportName = (rank: number) => `rank-${rank}.json`;
const seenName = (rank: number) => `rank-${rank}.seen`;

/** Ranks whose process can't be looked at are given up after this long. */
const PATIENCE_MS = Number(process.env.DEEPSPEED_TS_CHECKPOINT_TIMEOUT) || 600_000;
/** How long rank 0 waits for others to have read of a failure before it cleans up. */
const FAREWELL_MS = 30_000;

/**
 * Writes this rank's files, beside training: ranks talk through small files, because collectives would get between those of
 * training. Rank 0 waits for all, then writes the manifest and renames; the others wait for that. Ends alike on all ranks.
 */
export async function commit(job: Commit): Promise<void> {
  const path = join(job.directory.path, job.saving);
  const report = await writeFiles(job);
  if (job.rank !== 0) {
    await replaceFile(join(path, reportName(job.rank)), JSON.stringify(report)).catch(() => {});
    return follow(job, path);
  }
  try {
    await finish(job, path, report);
  } catch (error) {
    await giveUp(job, path, problemOf(error));
    throw error;
  }
  if (job.keepLast !== undefined) await job.directory.keepNewest(job.keepLast);
}

async function writeFiles({ snapshot: { files, failure }, threads }: Commit): Promise<Report> {
  const ends = [...files].map(async ([name, writer]) => [name, await writer.finish()] as const);
  try {
    if (failure) throw failure;
    return { files: Object.fromEntries(await Promise.all(ends)) };
  } catch (error) {
    // Nothing is written any more from here on; what was written makes room for the report, where the disk is full.
    await threads.close();
    await Promise.allSettled(ends);
    for (const { path } of files.values()) await rm(path, { force: true }).catch(() => {});
    return { problem: problemOf(error) };
  }
}

async function finish(job: Commit, path: string, own: Report): Promise<void> {
  const files: Record<string, FileRecord> = {};
  for (const rank of job.peers.keys()) {
    const report = rank === 0 ? own : await reportOf(job, path, rank);
    if ('problem' in report) throw errorOf(report.problem, rank);
    Object.assign(files, report.files);
  }
  for (const [name, { size }] of Object.entries(files)) {
    const found = await stat(join(path, name)).catch(() => undefined);
    if (found?.size !== size)
      throw writeError(
        join(path, name),
        new Error(`expected ${size} bytes, found ${found?.size ?? 'no such file'}; do all ranks see one file system?`),
      );
  }
  const { weightMap, totalSize } = job.snapshot;
  if (new Set(Object.values(weightMap)).size > 1) {
    const index = 'model.safetensors.index.json';
    files[index] = await writeJson(join(path, index), { metadata: { total_size: totalSize }, weight_map: weightMap });
  }
  if (job.huggingFaceConfig) files['config.json'] = await writeText(join(path, 'config.json'), configJson(job.huggingFaceConfig));
  for (const [name, text] of Object.entries(job.extraFiles)) files[name] = await writeText(join(path, name), text);
  for (const { name, path: from } of job.companions) files[name] = await copyNew(from, join(path, name));
  await writeJson(join(path, MANIFEST), seal({ ...job.manifest, files }));
  for (const rank of job.peers.keys()) await rm(join(path, reportName(rank)), { force: true });
  await syncDirectory(path);
  await job.directory.publish(job.saving, job.manifest.tag);
  if (job.saveLatest) await job.directory.setLatest(job.manifest.tag);
}

async function reportOf({ peers }: Commit, path: string, rank: number): Promise<Report> {
  return poll(() => readJson<Report>(join(path, reportName(rank))), peers[rank]!, `rank ${rank}`, path);
}

/** Waits for rank 0 to finish. */
async function follow({ directory, peers, manifest, saveLatest, rank }: Commit, path: string): Promise<void> {
  const outcome = async (): Promise<Problem | 'done' | undefined> => {
    const failed = await readJson<Problem>(join(path, FAILED));
    if (failed) return failed;
    // Under its first name it is not finished; reading the manifest again and again would be a waste.
    if (await stat(path).catch(() => undefined)) return undefined;
    const final = await readManifest(join(directory.path, manifest.tag)).catch(() => undefined);
    if (final?.id !== manifest.id) return { code: 'ERR_CHECKPOINT_PEER', message: `${path} was given up by rank 0, which says why`, path };
    return saveLatest && (await directory.latest()) !== manifest.tag ? undefined : 'done';
  };
  const result = await poll(outcome, peers[0]!, 'rank 0', path);
  if (result === 'done') return;
  await writeFile(join(path, seenName(rank)), '').catch(() => {});
  throw errorOf(result, 0);
}

/** Tells the others, waits until they know, and leaves nothing behind. */
async function giveUp({ snapshot, peers }: Commit, path: string, problem: Problem): Promise<void> {
  // Where it was published already, and naming it in `latest` has failed, the others look in the same place.
  await mkdir(path, { recursive: true }).catch(() => {});
  for (const name of [...snapshot.files.keys(), MANIFEST]) await rm(join(path, name), { force: true }).catch(() => {});
  await replaceFile(join(path, FAILED), JSON.stringify(problem)).catch(() => {});
  const others = [...peers.entries()].slice(1);
  const knows = async ([rank, peer]: [number, Peer]) =>
    gone(peer) || (await stat(join(path, seenName(rank))).catch(() => undefined)) !== undefined;
  const end = Date.now() + FAREWELL_MS;
  while (Date.now() < end && !(await Promise.all(others.map(knows))).every(Boolean)) await sleep(10);
  await rm(path, { recursive: true, force: true }).catch(() => {});
}

async function poll<T>(look: () => Promise<T | undefined>, peer: Peer, who: string, path: string): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  for (let pause = 1; ; pause = Math.min(2 * pause, 50)) {
    // Asked before the look: it may have finished and ended in between.
    const ended = gone(peer);
    const late = Date.now() > end;
    const found = await look();
    if (found !== undefined) return found;
    if (ended || late) {
      const what = ended ? `the process of ${who} has ended` : `${who} was silent for ${PATIENCE_MS} ms`;
      throw new CheckpointError('ERR_CHECKPOINT_PEER', `${path} was not finished: ${what}. Checkpoints saved before are untouched`, path);
    }
    await sleep(pause);
  }
}

function gone({ host, pid }: Peer): boolean {
  return host === hostname() && !isAlive(pid);
}

async function readJson<T>(path: string): Promise<T | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as T);
}

/** The directory that all ranks write into. */
export async function begin(directory: CheckpointDirectory, saving: string): Promise<void> {
  const path = join(directory.path, saving);
  await guarded(path, () => mkdir(path));
}
