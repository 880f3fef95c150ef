import { readdirSync, readFileSync } from 'node:fs';

/** Signals every process of a group; false when none is left. Signal 0 only asks. */
export function signalGroup(groupId: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-groupId, signal);
    return true;
  } catch {
    // ESRCH: the group is empty. EPERM: on macOS, only zombies are left of it.
    return false;
  }
}

/**
 * Processes with `NAME=value` in the environment they were started with. Reads /proc, so it finds none outside Linux.
 * A zombie has no environment left and is not listed.
 */
export function processesWithVariable(name: string, value: string): number[] {
  const needle = Buffer.from(`\0${name}=${value}\0`);
  let entries: string[];
  try {
    entries = readdirSync('/proc');
  } catch {
    return [];
  }
  return entries.filter((entry) => /^\d+$/.test(entry) && environmentOf(entry).includes(needle)).map(Number);
}

/** The environment block of a process with a NUL before each variable, or an empty buffer when it is gone or another user's. */
function environmentOf(pid: string): Buffer {
  try {
    return Buffer.concat([Buffer.of(0), readFileSync(`/proc/${pid}/environ`)]);
  } catch {
    return Buffer.alloc(0);
  }
}
