import { open, readFile, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/** How often a holder says that it lives, and after what silence it is taken for dead. */
const BEAT_MS = 5_000;
const SILENCE_MS = 30_000;
const PAUSE_MS = 50;

/**
 * Runs `body` while no other process that asks for the same path does: ranks that want one file download it once. `undefined` where another one
 * has held it in the meantime: look again whether there is anything left to do.
 */
export async function withLock<T>(path: string, body: () => Promise<T>): Promise<T | undefined> {
  const me = `${hostname()}:${process.pid}`;
  try {
    const file = await open(path, 'wx');
    await file.writeFile(me).finally(() => file.close());
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    await gone(path);
    return undefined;
  }
  const beat = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), BEAT_MS);
  beat.unref();
  try {
    return await body();
  } finally {
    clearInterval(beat);
    await rm(path, { force: true });
  }
}

/** Waits until a lock is given back, or removes that of a process that has died. */
async function gone(path: string): Promise<void> {
  for (;;) {
    const found = await stat(path).catch(() => undefined);
    if (!found) return;
    const [host, pid] = (await readFile(path, 'utf8').catch(() => '')).split(':');
    const dead = host === hostname() && pid ? !isAlive(Number(pid)) : Date.now() - found.mtimeMs > SILENCE_MS;
    if (dead) return rm(path, { force: true });
    await sleep(PAUSE_MS);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
