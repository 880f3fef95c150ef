/**
 * A process of its own that outlives the launcher by a moment, so that no rank outlives it at all.
 *
 * It holds one end of a pipe whose other end only the launcher has. However the launcher ends (return, crash, SIGKILL), the kernel closes
 * that end and the reaper kills every process group it was told of, then whatever else carries the launch's id in its environment:
 * processes that a rank moved into sessions of their own. It has its own session, ignores the signals of a terminal, and runs no user code.
 *
 * stdin: `+<group>` watch, `-<group>` forget, `done` the launcher ends in good order. stdout: `ready` once signals are ignored.
 * argv: the launch id.
 */
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { LAUNCH_ID } from './environment.js';
import { processesWithVariable, signalGroup } from './process-group.js';

/** A killed process may take a while to go (uninterruptible I/O, gigabytes to unmap); after this the kernel has it in hand anyway. */
const PATIENCE_MS = 5000;

const launchId = process.argv[2]!;
const groups = new Set<number>();
let orderly = false;
let ended = false;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) process.on(signal, () => {});

let partial = '';
process.stdin.setEncoding('utf8');
process.stdin.on('data', (text: string) => {
  const lines = (partial + text).split('\n');
  partial = lines.pop()!;
  for (const line of lines) {
    if (line === 'done') orderly = true;
    else if (line.startsWith('+')) groups.add(Number(line.slice(1)));
    else if (line.startsWith('-')) groups.delete(Number(line.slice(1)));
  }
});
// A dead launcher shows as an end or, when it left unread data behind, as ECONNRESET.
process.stdin.on('end', onLauncherGone);
process.stdin.on('error', onLauncherGone);
process.stdout.on('error', () => {});
process.stdout.write('ready\n');

async function onLauncherGone(): Promise<void> {
  if (ended) return;
  ended = true;
  const foundSome = await killAll();
  if (foundSome && !orderly) say('deepspeed: the launcher was killed, so its ranks have been killed too.');
  process.exit(0);
}

/** SIGKILLs everything of the launch. Returns whether there was anything. */
async function killAll(): Promise<boolean> {
  // Once is enough: a group is signalled as one, also against members that are just forking.
  let foundSome = [...groups].filter((group) => signalGroup(group, 'SIGKILL')).length > 0;
  // Not so for strays: each may have forked between being listed and dying.
  for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await sleep(10)) {
    const strays = processesWithVariable(LAUNCH_ID, launchId);
    if (strays.length === 0) break;
    for (const pid of strays) signalProcess(pid);
    foundSome = true;
  }
  return foundSome;
}

function signalProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It went by itself.
  }
}

function say(text: string): void {
  try {
    writeSync(2, `${text}\n`);
  } catch {
    // The terminal went with the launcher.
  }
}
