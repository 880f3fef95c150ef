import { access, mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CheckpointError } from './error.js';
import { guarded, replaceFile, syncDirectory } from './files.js';
import { MANIFEST, readManifest } from './manifest.js';
import { checkTag, LATEST, mayBeAlive, REMOVED, REPLACED, SAVING } from './names.js';

/** A directory of checkpoints, as one rank at a time changes it. */
export class CheckpointDirectory {
  constructor(readonly path: string) {}

  /** Makes it where there is none, and removes what saves that died have left. */
  async prepare(): Promise<void> {
    await guarded(this.path, () => makeDirectories(this.path));
    const names = await this.#names();
    for (const name of names) {
      if (name.startsWith(REMOVED) || (name.startsWith(SAVING) && !mayBeAlive(name))) await this.#delete(name);
      if (!name.startsWith(REPLACED)) continue;
      const tag = name.slice(REPLACED.length);
      if (names.includes(tag)) await this.#delete(name);
      else await this.#rename(name, tag);
    }
  }

  /** Gives a finished directory its tag, in place of the one that had it. Whenever this stops, one of the two can be loaded. */
  async publish(saving: string, tag: string): Promise<void> {
    const replaced = REPLACED + tag;
    const old = await exists(join(this.path, tag));
    if (old) await this.#rename(tag, replaced);
    await this.#rename(saving, tag);
    await syncDirectory(this.path);
    // It may be new itself.
    await syncDirectory(dirname(this.path));
    if (old) await this.#delete(replaced);
  }

  async setLatest(tag: string): Promise<void> {
    await replaceFile(join(this.path, LATEST), tag);
    await syncDirectory(this.path);
  }

  /** The tag in `latest`; `undefined` where there is none. */
  async latest(): Promise<string | undefined> {
    const text = await readFile(join(this.path, LATEST), 'utf8').catch(() => undefined);
    return text?.trim();
  }

  /** Where the checkpoint of a tag lies; without a tag, of `latest`. */
  async find(wanted?: string): Promise<string | undefined> {
    const tag = wanted ?? (await this.latest());
    if (tag === undefined) return undefined;
    checkTag(tag);
    // The second name: a save that was to replace it has died in between.
    for (const name of [tag, REPLACED + tag]) if (await exists(join(this.path, name))) return join(this.path, name);
    const tags = await this.#tags();
    const there = tags.length === 0 ? 'there are none' : `there are ${tags.join(', ')}`;
    const from = wanted === undefined ? `, which ${join(this.path, LATEST)} names` : '';
    throw new CheckpointError('ERR_CHECKPOINT_MISSING', `${this.path} has no checkpoint '${tag}'${from}; ${there}`, join(this.path, tag));
  }

  /** Deletes all but the `count` newest checkpoints. What is no checkpoint, and what `latest` names, stays. */
  async keepNewest(count: number): Promise<void> {
    const latest = await this.latest();
    const found = [];
    for (const tag of await this.#tags()) {
      const manifest = await readManifest(join(this.path, tag)).catch(() => undefined);
      if (manifest) found.push({ tag, savedAt: manifest.saved_at });
    }
    found.sort((a, b) => b.savedAt.localeCompare(a.savedAt));
    for (const { tag } of found.slice(count)) {
      if (tag === latest) continue;
      // Half a checkpoint must not be found under its tag.
      await this.#rename(tag, REMOVED + tag);
      await this.#delete(REMOVED + tag);
    }
  }

  async #tags(): Promise<string[]> {
    const names = (await this.#names()).filter((name) => !name.startsWith('.'));
    const marked = await Promise.all(names.map((name) => exists(join(this.path, name, MANIFEST))));
    return names.filter((_, i) => marked[i]);
  }

  async #names(): Promise<string[]> {
    return (await readdir(this.path).catch(() => [])).sort();
  }

  async #rename(from: string, to: string): Promise<void> {
    await guarded(join(this.path, to), () => rename(join(this.path, from), join(this.path, to)));
  }

  async #delete(name: string): Promise<void> {
    await guarded(join(this.path, name), () => rm(join(this.path, name), { recursive: true, force: true }));
  }
}

/** Not mkdir's `recursive`, which never ends where a parent can be opened but not made in, as in /proc. */
async function makeDirectories(path: string): Promise<void> {
  if ((await stat(path).catch(() => undefined))?.isDirectory()) return;
  if (dirname(path) !== path) await makeDirectories(dirname(path));
  await mkdir(path);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
