import { basename, dirname, resolve } from 'node:path';
import { TrainerError } from './arguments.js';
import { checkpointsIn } from './checkpoints.js';

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
