import { hostname } from 'node:os';
import { CheckpointError } from './error.js';

// Names in a directory of checkpoints: <tag>/, the file `latest`, and these, which begin with a dot and are nobody's checkpoint.

/** A checkpoint that is being written. Says by whom, so that leftovers of the dead can be told. */
export const SAVING = '.saving-';
/** The checkpoint whose tag is being given to a new one. */
export const REPLACED = '.replaced-';
/** A checkpoint that is being deleted. */
export const REMOVED = '.removed-';
/** The file that names the tag of the last checkpoint. */
export const LATEST = 'latest';

const STARTED = performance.timeOrigin.toFixed(0);

export function savingName(tag: string, id: string): string {
  return `${SAVING}${[tag, hostname(), process.pid, STARTED, id].join('~')}`;
}

/** Whether the process that writes there may still be alive. */
export function mayBeAlive(saving: string): boolean {
  const [host, pid, started] = saving.split('~').slice(-4);
  if (host !== hostname()) return false;
  // In a container every process may have the same id as the one before.
  return Number(pid) === process.pid ? started === STARTED : isAlive(Number(pid));
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** A part of an optimizer state in its file: `exp_avg/h.0.weight@128` begins at element 128 of the parameter. */
export function partName(kind: string, name: string, start: number): string {
  return `${kind}/${name}@${start}`;
}

export function parsePartName(part: string): { kind: string; name: string; start: number } {
  const slash = part.indexOf('/');
  const at = part.lastIndexOf('@');
  return { kind: part.slice(0, slash), name: part.slice(slash + 1, at), start: Number(part.slice(at + 1)) };
}

/** A tag becomes a directory's name. */
export function checkTag(tag: string): void {
  if (typeof tag === 'string' && /^[^./\\\0][^/\\\0]*$/.test(tag) && tag.length <= 150 && tag !== LATEST) return;
  const expected = "expected a name of at most 150 characters without / and \\ that does not begin with '.' and is not 'latest'";
  throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', `tag: ${expected}, got ${JSON.stringify(tag)}`, String(tag));
}
