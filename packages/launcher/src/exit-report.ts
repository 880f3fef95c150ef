import { constants } from 'node:os';
import type { LaunchResult } from './job.js';
import type { RankExit } from './rank-process.js';

const SIGNALS: Partial<Record<NodeJS.Signals, string>> = {
  SIGKILL: 'most likely out of memory (the kernel says so in `dmesg`), or killed by hand',
  SIGSEGV: 'a crash in native code',
  SIGBUS: 'a mapped file or shared memory that ran out of room: look at `df /dev/shm` and at the disk',
  SIGABRT: 'native code gave up; its reason is in the lines below or above',
  SIGILL: 'an instruction this processor lacks; DEEPSPEED_TS_CPU_ISA=baseline avoids the newer ones',
  SIGFPE: 'an integer division by zero in native code',
  SIGTERM: 'asked to stop by someone outside this launcher',
  SIGINT: 'interrupted by someone outside this launcher',
  SIGHUP: 'its terminal went away',
  SIGXCPU: 'over its CPU time limit (`ulimit -t`)',
};

/** Exit codes that node itself gives a meaning. */
const CODES: Record<number, string> = {
  9: "node refused its flags; check NODE_OPTIONS and the launcher's own node flags",
  13: 'the script waits at its top level for something that nothing in this process can complete any more',
  127: 'node itself could not be started',
};

const OUT_OF_HEAP = 'the JavaScript heap is full; NODE_OPTIONS=--max-old-space-size=MIB makes it larger';

type End = Pick<RankExit, 'code' | 'signal'>;

/** One rank's end in words: `exit code 3`, `SIGKILL: most likely out of memory ...`. */
export function describeExit(exit: End & { fatalError?: string | undefined }): string {
  // A shell or wrapper reports a child's death by signal n as exit code 128 + n.
  const wrapped = exit.code !== null && exit.code > 128 ? signalName(exit.code - 128) : undefined;
  const signal = exit.signal ?? wrapped;
  const reason = exit.fatalError?.includes('heap out of memory') ? OUT_OF_HEAP : signal ? SIGNALS[signal] : CODES[exit.code ?? 0];
  const what = exit.signal ? `killed by ${exit.signal}` : `exit code ${exit.code}${wrapped ? ` (128 + ${wrapped})` : ''}`;
  return reason === undefined ? what : `${what}: ${reason}`;
}

/** What a user needs to see of a failed launch: who failed first, how, its last words, and what became of the others. */
export function describeFailure(result: LaunchResult): string {
  const { failure, ranks } = result;
  if (failure === null) return '';
  const { rank, pid, afterMs, stderrTail } = failure;
  const lines: string[] = [];
  const which = ranks.length === 1 ? 'the script' : `rank ${rank}`;
  const first = ranks.length === 1 ? '' : ' first';
  lines.push(
    `deepspeed: ${which} (pid ${pid}) failed${first}, ${(afterMs / 1000).toFixed(1)} s after the start: ${describeExit(failure)}.`,
  );
  if (ranks.length > 1) {
    lines.push(stderrTail.length === 0 ? 'It wrote nothing to stderr.' : 'Its last lines on stderr:');
    lines.push(...stderrTail.map((line) => `  | ${line}`));
    const others = ranks.filter((exit) => exit.rank !== rank);
    lines.push(`The others: ${others.map((exit) => `rank ${exit.rank} ${briefly(exit)}`).join(', ')}.`);
  }
  return lines.join('\n');
}

function briefly(exit: End): string {
  if (exit.signal !== null) return `stopped (${exit.signal})`;
  return exit.code === 0 ? 'done (0)' : `exit code ${exit.code}`;
}

function signalName(number: number): NodeJS.Signals | undefined {
  return (Object.keys(constants.signals) as NodeJS.Signals[]).find((name) => constants.signals[name] === number);
}
