import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { isatty } from 'node:tty';
import { LaunchError } from './errors.js';
import { describeFailure } from './exit-report.js';
import type { Job } from './job.js';
import { start } from './launch.js';
import { parseArgs, USAGE } from './parse-args.js';
import type { RankLine } from './rank-process.js';

/** Errors before a rank has run, as command line tools have it. */
const EXIT_NOT_STARTED = 2;
/** Signals closer together than this count as one. */
const REPEAT_MS = 500;
const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The `deepspeed` command. Returns its exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  // A reader that went away (`| head`) ends neither the launcher nor the training.
  process.stdout.on('error', () => {});
  process.stderr.on('error', () => {});
  try {
    const command = parseArgs(argv);
    if (command.kind === 'help') {
      process.stdout.write(USAGE);
      return 0;
    }
    if (command.kind === 'version') {
      process.stdout.write(`${(createRequire(import.meta.url)('../package.json') as { version: string }).version}\n`);
      return 0;
    }
    const { args } = command;
    const { ranks } = args;

    let job: Job | undefined;
    let askedAt = 0;
    // Without any terminal a hangup is none of our business: this is what keeps `nohup deepspeed ... &` alive, since node undoes the
    // ignoring of SIGHUP that nohup arranged. Asked now, because after the hangup a terminal no longer says that it is one.
    const onTerminal = isatty(0) || isatty(1) || isatty(2);
    for (const signal of STOP_SIGNALS) {
      process.on(signal, () => {
        if (signal === 'SIGHUP' && !onTerminal) return;
        // Before there is a job no script runs yet: leaving is enough, the reaper and the gates do the rest.
        if (job === undefined) process.exit(128 + constants.signals[signal]);
        // One Ctrl-C can arrive twice, from the terminal and again from npm; only a later one means hurry.
        if (askedAt !== 0 && Date.now() - askedAt < REPEAT_MS) return;
        askedAt = Date.now();
        job.stop(signal);
      });
    }
    job = await start({ ...args, args: args.scriptArgs, attach: true, onLine: (line) => print(line, ranks) });
    if (!args.quiet && ranks > 1)
      say(`deepspeed: ${ranks} ranks of ${args.script}, meeting at ${job.world.masterAddr}:${job.world.masterPort}`);

    const result = await job.finished;
    if (result.failure !== null) say(describeFailure(result));
    else if (result.stoppedBy !== null && !args.quiet) say(`deepspeed: stopped by ${result.stoppedBy}.`);
    if (result.stoppedBy === 'SIGHUP') {
      // Leaving by process.exit would have node reset a terminal that is gone, which makes it abort and dump core.
      process.removeAllListeners('SIGHUP');
      process.kill(process.pid, 'SIGHUP');
    }
    return result.exitCode;
  } catch (error) {
    if (!(error instanceof LaunchError)) throw error;
    say(`deepspeed: ${error.message}`);
    return error.code === 'REAPER_LOST' ? 1 : EXIT_NOT_STARTED;
  }
}

/** stdout carries rank 0's stdout and nothing else, so that what it prints (JSON lines, say) can be read by a program. */
function print({ rank, stream, text }: RankLine, ranks: number): void {
  if (stream === 'stdout' && rank === 0) process.stdout.write(`${text}\n`);
  else if (ranks === 1) process.stderr.write(`${text}\n`);
  else process.stderr.write(`[rank ${rank}] ${text}\n`);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
