import { copyFile, mkdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';

const COMMIT = /^[0-9a-f]{40}$/;

/**
 * A model in the cache, as all Hugging Face libraries lay it out: `blobs/` holds contents by their hash, `snapshots/<commit>/` links to them under
 * the names that files have in that commit, and `refs/<branch>` says which commit that was.
 */
export class CachedRepo {
  readonly #folder: string;

  constructor(cache: string, id: string) {
    this.#folder = join(cache, `models--${id.replaceAll('/', '--')}`);
  }

  /** The directory of a revision that was downloaded before, wholly or in part. */
  async snapshotOf(revision: string): Promise<string | undefined> {
    const commit = COMMIT.test(revision) ? revision : (await readFile(this.#refOf(revision), 'utf8').catch(() => '')).trim();
    if (!commit) return undefined;
    const found = await stat(this.snapshot(commit)).catch(() => undefined);
    return found?.isDirectory() ? this.snapshot(commit) : undefined;
  }

  snapshot(commit: string): string {
    return join(this.#folder, 'snapshots', commit);
  }

  blob(hash: string): string {
    return join(this.#folder, 'blobs', hash);
  }

  async setRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const path = this.#refOf(revision);
    await mkdir(dirname(path), { recursive: true });
    // Several ranks may do this at a time.
    const temporary = `${path}.${process.pid}.tmp`;
    await writeFile(temporary, commit);
    await rename(temporary, path);
  }

  async has(commit: string, file: string): Promise<boolean> {
    return exists(join(this.snapshot(commit), file));
  }

  /** Gives a blob the name of a file of a commit. */
  async link(commit: string, file: string, hash: string): Promise<void> {
    const path = join(this.snapshot(commit), file);
    await mkdir(dirname(path), { recursive: true });
    try {
      await symlink(relative(dirname(path), this.blob(hash)), path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') return;
      // Where links are not allowed, as on some Windows machines.
      if (code !== 'EPERM') throw error;
      await copyFile(this.blob(hash), path);
    }
  }

  #refOf(revision: string): string {
    return join(this.#folder, 'refs', revision);
  }
}

/** Whether there is a file, or what a link leads to. */
export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
