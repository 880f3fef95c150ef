import { readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { TrainerError } from './arguments.js';

/** The name of the checkpoint of a step, as Hugging Face has it. */
export function checkpointName(step: number): string {
  return `checkpoint-${step}`;
}

/** Names of the checkpoints in a folder, by step. */
export async function checkpointsIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => /^checkpoint-\d+$/.test(name)).sort((a, b) => stepOf(a) - stepOf(b));
}

/** Deletes the oldest checkpoints of a folder beyond a number. The newest, and the best where there is one, stay. One rank calls it. */
export async function rotate(folder: string, limit: number, best: string | null): Promise<void> {
  const all = await checkpointsIn(folder);
  const kept = best === null ? undefined : basename(best);
  const candidates = all.slice(0, -1).filter((name) => name !== kept);
  // The newest is always there; so is the best one, which counts too unless they are the same.
  const places = Math.max(0, limit - 1 - Number(kept !== undefined && all.slice(0, -1).includes(kept)));
  for (const name of candidates.slice(0, Math.max(0, candidates.length - places))) {
    // Half a checkpoint must not be found under its name; the engine clears away what is called so.
    const removed = join(folder, `.removed-${name}`);
    await rename(join(folder, name), removed);
    await rm(removed, { recursive: true, force: true });
  }
}

function stepOf(name: string): number {
  return Number(name.slice('checkpoint-'.length));
}

/** A checkpoint as engines know them. */
export interface ResumePoint {
  readonly directory: string;
  readonly tag: string;
}

/**
 * Where to go on from.
 *
 * @param from - A checkpoint's folder, or true for the last one of `outputDir`.
 * @throws TrainerError where there is none
 */
export async function resumePoint(from: string | true, outputDir: string): Promise<ResumePoint> {
  if (typeof from === 'string') {
    const path = resolve(from);
    return { directory: dirname(path), tag: basename(path) };
  }
  const tag = (await checkpointsIn(outputDir)).at(-1);
  if (tag === undefined)
    throw new TrainerError(`resumeFromCheckpoint: ${outputDir} has no checkpoint-N folder; train without resumeFromCheckpoint to begin`);
  return { directory: outputDir, tag };
}
