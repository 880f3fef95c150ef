import { connect } from '@deepspeed-ts/kernels-cpu';
import type { RankContext } from '../spawn-world.js';
import { close } from '../zero/training-run.js';
import { hashOfFrozen, hashOfState, open, type Run, trainMicro } from './resumable-run.js';

/** What a rank does with one engine: first loads, then trains, saves, and trains on. */
export interface Task {
  readonly run: Run;
  readonly load?: string;
  readonly tag?: string;
  /** Micro-batches before the save. */
  readonly train?: number;
  readonly save?: string;
  /** Micro-batches after the save. */
  readonly trainOn?: number;
}

export interface TaskResult {
  /** Of the state when it was saved, and in the end. */
  readonly saved: string;
  readonly end: string;
  readonly frozen: string;
  readonly lossScale: number;
  readonly loader: unknown;
}

export async function perform(task: Task, communicator: Parameters<typeof open>[1]): Promise<TaskResult> {
  const resumable = await open(task.run, communicator);
  const { engine, loader } = resumable;
  if (task.load && !(await engine.loadCheckpoint(task.load, task.tag ? { tag: task.tag } : {})))
    throw new Error(`there is no checkpoint in ${task.load}`);
  await trainMicro(resumable, task.train ?? 0);
  const saved = await hashOfState(engine);
  // Written beside what is trained next.
  if (task.save) void (await engine.saveCheckpoint(task.save));
  await trainMicro(resumable, task.trainOn ?? 0);
  const result = {
    saved,
    end: await hashOfState(engine),
    frozen: await hashOfFrozen(engine),
    lossScale: engine.lossScale,
    loader: loader.stateDict(),
  };
  await close(engine);
  return result;
}

export default async function rank({ args }: RankContext<readonly Task[]>): Promise<TaskResult[]> {
  const communicator = await connect();
  const results: TaskResult[] = [];
  for (const task of args) results.push(await perform(task, communicator));
  await communicator.close();
  return results;
}
