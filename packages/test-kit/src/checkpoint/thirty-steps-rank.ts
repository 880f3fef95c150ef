import type { Communicator } from '@deepspeed-ts/core';
import { connect } from '@deepspeed-ts/kernels-cpu';
import type { RankContext } from '../spawn-world.js';
import { close } from '../zero/training-run.js';
import { hashOfState, open, type Run, trainMicro } from './resumable-run.js';

/** One training that is cut into parts. */
export interface CutRun {
  readonly run: Run;
  readonly directory: string;
  /** Micro-batches after which this part ends. */
  readonly until: number;
}

export interface PartArgs {
  readonly runs: readonly CutRun[];
  /** Whether this is the last part: then it ends, with the hashes of the trainings, and of the same ones without a cut. */
  readonly last: boolean;
}

export interface PartResult {
  readonly cut: string;
  readonly straight: string;
}

/** Goes on with each training where its checkpoint is and saves it again; then trains on, unsaved, until it is killed. */
export default async function rank({ args, say }: RankContext<PartArgs>): Promise<PartResult[]> {
  const communicator = await connect();
  const results: PartResult[] = [];
  for (const cut of args.runs) {
    const one = await goOn(cut, communicator);
    const hash = await hashOfState(one.engine);
    if (args.last) results.push({ cut: hash, straight: await straight(cut, communicator) });
    else await trainMicro(one, 2);
    await close(one.engine);
  }
  if (!args.last) {
    say('saved');
    const one = await open(args.runs[0]!.run, communicator);
    for (;;) await trainMicro(one, 1);
  }
  await communicator.close();
  return results;
}

async function goOn({ run, directory, until }: CutRun, communicator: Communicator) {
  const one = await open(run, communicator);
  await one.engine.loadCheckpoint(directory);
  await trainMicro(one, until - one.engine.microSteps);
  await (await one.engine.saveCheckpoint(directory, { tag: `after-${until}` })).finished;
  return one;
}

async function straight({ run, until }: CutRun, communicator: Communicator): Promise<string> {
  const one = await open(run, communicator);
  await trainMicro(one, until);
  const hash = await hashOfState(one.engine);
  await close(one.engine);
  return hash;
}
