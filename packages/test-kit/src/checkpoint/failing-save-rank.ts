import { execFileSync } from 'node:child_process';
import { connect } from '@deepspeed-ts/kernels-cpu';
import type { RankContext } from '../spawn-world.js';
import { close } from '../zero/training-run.js';
import { hashOfState, open, type Run, trainMicro } from './resumable-run.js';

export interface FailingSaveArgs {
  readonly run: Run;
  /** Tried one after the other; see `disturb`. */
  readonly saves: readonly {
    directory: string;
    tag: string;
    disturb?: 'limit files of rank 1' | 'other tag on rank 1' | 'other directory on rank 1' | 'end rank 1';
  }[];
}

/** How a save ended on this rank: 'saved', or the error's message. */
export type SaveOutcome = { readonly saved: true; readonly hash: string } | { readonly code: string; readonly message: string };

/** Saves under difficulties, and says how each went. */
export default async function rank({ rank, args }: RankContext<FailingSaveArgs>): Promise<SaveOutcome[]> {
  const communicator = await connect();
  const resumable = await open(args.run, communicator);
  const { engine } = resumable;
  const outcomes: SaveOutcome[] = [];
  for (const { directory, tag, disturb } of args.saves) {
    await trainMicro(resumable, 1);
    const hash = await hashOfState(engine);
    try {
      if (disturb === 'limit files of rank 1' && rank === 1) limitFiles('4096');
      const path = disturb === 'other directory on rank 1' && rank === 1 ? `${directory}-1` : directory;
      const saved = await engine.saveCheckpoint(path, { tag: disturb === 'other tag on rank 1' ? `${tag}-${rank}` : tag });
      if (disturb === 'end rank 1' && rank === 1) process.kill(process.pid, 'SIGKILL');
      await saved.finished;
      outcomes.push({ saved: true, hash });
    } catch (error) {
      const { code, message } = error as Error & { code: string };
      outcomes.push({ code, message });
      if (disturb !== 'end rank 1') continue;
      // Nobody is left to go on with; everything must end all the same.
      await engine.dispose();
      await communicator.close().catch(() => {});
      throw error;
    } finally {
      if (disturb === 'limit files of rank 1' && rank === 1) limitFiles('unlimited');
    }
  }
  await close(engine);
  await communicator.close();
  return outcomes;
}

/** The largest size of a file that this process may write, in bytes. */
function limitFiles(bytes: string): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`]);
}
