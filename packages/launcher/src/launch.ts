import { randomUUID } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { rankEnvironment } from './environment.js';
import { LaunchError } from './errors.js';
import { Job, type LaunchResult } from './job.js';
import { findPort, findScript } from './preflight.js';
import { inheritedNodeFlags, rankArguments } from './rank-command.js';
import { type RankLine, RankProcess } from './rank-process.js';
import { Reaper } from './reaper-client.js';

export interface LaunchOptions {
  /** Path of a .ts or .js file; relative to `cwd`. */
  script: string;
  /** World size. Default 1. */
  ranks?: number;
  args?: readonly string[];
  /** Default: this process's environment. The ranks' own variables are added to it. */
  env?: NodeJS.ProcessEnv;
  /** Default: this process's. */
  cwd?: string;
  /** Flags of node for every rank. Default: this process's own, less those of debugging, testing and evaluating. */
  nodeFlags?: readonly string[];
  /** Default 127.0.0.1. */
  masterAddr?: string;
  /** Default: a free port. */
  masterPort?: number | undefined;
  /** Appends `--local_rank=N` to the script's arguments, as DeepSpeed does. Default false. */
  localRankArgument?: boolean;
  /** Each rank's output is also appended to `rank<N>.log` in this folder, which is made when missing. */
  logDirectory?: string | undefined;
  /**
   * Rank 0 gets this process's stdin and, unless logged, its stdout; a single rank also its stderr. A terminal stays a terminal for the
   * script. Default false: no stdin, and every line goes to `onLine`.
   */
  attach?: boolean;
  /** Every line of output that is not attached, as it comes. */
  onLine?: (line: RankLine) => void;
  /** From asking ranks to stop to killing them. Default 3000. */
  graceMs?: number;
}

/**
 * Starts the ranks of a script on this machine, each knowing its place from RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and their kin.
 * When one fails the others are stopped. Nothing that they start outlives them or this process, however it ends.
 *
 * @returns the running job, once every rank is started.
 * @throws LaunchError when the script, the port, the address or the log folder won't do; nothing is left running then.
 */
export async function start(options: LaunchOptions): Promise<Job> {
  const { ranks: size = 1, cwd = process.cwd(), masterAddr = '127.0.0.1', attach = false, logDirectory } = options;
  if (process.platform === 'win32') throw new LaunchError('UNSUPPORTED_PLATFORM', 'The launcher needs process groups: Linux or macOS.');
  if (!Number.isSafeInteger(size) || size < 1) throw new LaunchError('BAD_ARGUMENTS', `ranks: expected a positive integer, got ${size}.`);
  const script = findScript(options.script, cwd);
  const masterPort = await findPort(masterAddr, options.masterPort);
  const logFiles = openLogs(logDirectory, size);

  const launchId = randomUUID();
  const world = { size, masterAddr, masterPort, launchId };
  const nodeFlags = options.nodeFlags ?? inheritedNodeFlags(process.execArgv);
  const reaper = await Reaper.start(launchId);

  const ranks: RankProcess[] = [];
  try {
    for (let rank = 0; rank < size; rank++) {
      ranks.push(
        new RankProcess({
          rank,
          args: rankArguments({ script, args: options.args ?? [], nodeFlags, localRank: options.localRankArgument ? rank : undefined }),
          cwd,
          env: rankEnvironment(options.env ?? process.env, world, rank),
          inherit: {
            stdin: attach && rank === 0,
            stdout: attach && rank === 0 && logDirectory === undefined,
            stderr: attach && size === 1 && logDirectory === undefined,
          },
          onLine: options.onLine ?? (() => {}),
          logFile: logFiles[rank],
        }),
      );
    }
    const pids = await Promise.all(ranks.map((rank) => rank.spawned));
    await Promise.all(pids.map((pid) => reaper.watch(pid)));
  } catch (error) {
    for (const rank of ranks) rank.signal('SIGKILL');
    await reaper.finish();
    logFiles.forEach(closeSync);
    throw new LaunchError('SPAWN_FAILED', `Could not start ${size} ranks: ${(error as Error).message}.`);
  }

  // Every rank is known to the reaper: only now may any of them run.
  const job = new Job(world, ranks, reaper, options.graceMs ?? 3000);
  for (const rank of ranks) rank.open();
  const closeLogs = () => logFiles.forEach(closeSync);
  job.finished.then(closeLogs, closeLogs);
  return job;
}

/** {@link start}, and wait for the end. A failing rank is a result, not an exception. */
export async function launch(options: LaunchOptions): Promise<LaunchResult> {
  const job = await start(options);
  return await job.finished;
}

/** Opens for appending, so that a rerun doesn't lose the output of the run that crashed. */
function openLogs(directory: string | undefined, ranks: number): number[] {
  if (directory === undefined) return [];
  try {
    mkdirSync(directory, { recursive: true });
    return Array.from({ length: ranks }, (_, rank) => {
      const file = openSync(join(directory, `rank${rank}.log`), 'a');
      writeSync(file, `--- rank ${rank} of ${ranks}, ${new Date().toISOString()}\n`);
      return file;
    });
  } catch (error) {
    throw new LaunchError('LOG_DIRECTORY', `Cannot write logs to ${directory}: ${(error as Error).message}.`);
  }
}
