import { connect } from '@deepspeed-ts/kernels-cpu';
import type { RankContext } from '../spawn-world.js';
import { hashOfState, open, type Run, trainMicro } from './resumable-run.js';

export interface SavingArgs {
  readonly run: Run;
  readonly directory: string;
}

/** Trains and saves for ever, each checkpoint with the hash of what it holds. */
export default async function rank({ args, say }: RankContext<SavingArgs>): Promise<never> {
  const resumable = await open(args.run, await connect());
  const { engine } = resumable;
  for (;;) {
    await trainMicro(resumable, 1);
    // Every second save replaces the one before.
    const tag = `after-${Math.floor(engine.globalSteps / 2)}`;
    await engine.saveCheckpoint(args.directory, { tag, keepLast: 2, clientState: { hash: await hashOfState(engine) } });
    say(`step ${engine.globalSteps}`);
  }
}
