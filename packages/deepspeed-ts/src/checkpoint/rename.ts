import { nearest } from '@deepspeed-ts/core';
import { CheckpointError } from './error.js';

/** The model's name of a parameter by its name in the checkpoint: those that differ, or a function of all. */
export type Rename = Readonly<Record<string, string>> | ((name: string) => string);

export function renamer(rename: Rename | undefined): (name: string) => string {
  if (rename === undefined) return (name) => name;
  return typeof rename === 'function' ? rename : (name) => (Object.hasOwn(rename, name) ? rename[name]! : name);
}

/** @throws CheckpointError for a name that the checkpoint does not have: it would be passed over in silence */
export function checkRename(rename: Rename | undefined, names: readonly string[], path: string): void {
  if (rename === undefined || typeof rename === 'function') return;
  const known = new Set(names);
  const unknown = Object.keys(rename).find((name) => !known.has(name));
  if (unknown === undefined) return;
  const [near] = nearest(unknown, names);
  const text = `rename: ${path} has no parameter '${unknown}'${near ? `; did you mean '${near}'?` : ''}`;
  throw new CheckpointError('ERR_CHECKPOINT_ARGUMENT', text, path);
}
