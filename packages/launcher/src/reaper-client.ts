import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { LAUNCH_ID } from './environment.js';
import { LaunchError } from './errors.js';
import { tsxFlags } from './rank-command.js';

/** Longer than the reaper itself takes at most. */
const FINISH_MS = 8000;

/** The launcher's side of the reaper process: see reaper.ts for what it does and why. */
export class Reaper {
  #finishing = false;
  /** Called when the reaper ends before {@link finish}: from then on a killed launcher would leave its ranks behind. */
  onLost: () => void = () => {};

  private constructor(private readonly child: ChildProcess) {
    child.stdin!.on('error', () => {});
    child.once('exit', () => {
      if (!this.#finishing) this.onLost();
    });
  }

  /** Starts the reaper and waits until it ignores signals. Before that no rank may exist. */
  static async start(launchId: string): Promise<Reaper> {
    // Run from source, the reaper is TypeScript too.
    const source = import.meta.url.endsWith('.ts');
    const entry = fileURLToPath(new URL(source ? './reaper.ts' : './reaper.js', import.meta.url));
    const env = { ...process.env };
    // It must not be taken for one of the ranks (of an outer launch either), and the user's node hooks are not for it.
    delete env[LAUNCH_ID];
    delete env.NODE_OPTIONS;
    const child = spawn(process.execPath, [...(source ? tsxFlags() : []), entry, launchId], {
      detached: true,
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const reaper = new Reaper(child);
    const ready = await Promise.race([once(child.stdout!, 'data').then(() => true), once(child, 'exit').then(() => false)]).catch(
      () => false,
    );
    if (!ready) throw new LaunchError('SPAWN_FAILED', 'The process that guards the ranks could not be started, so no rank was.');
    return reaper;
  }

  /** Resolves once the word is in the pipe: from there it reaches the reaper even if the launcher dies at once. */
  watch(group: number): Promise<void> {
    return new Promise((done, fail) => {
      this.child.stdin!.write(`+${group}\n`, (error) => (error ? fail(error) : done()));
    });
  }

  /** The group is gone, and its number may soon be another's. */
  forget(group: number): void {
    this.child.stdin!.write(`-${group}\n`);
  }

  /** Lets the reaper kill what is left of the launch (processes that moved out of their rank's group) and waits for it to end. */
  async finish(): Promise<void> {
    this.#finishing = true;
    const { child } = this;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.stdin!.end('done\n');
    const timer = setTimeout(() => child.kill('SIGKILL'), FINISH_MS);
    await exited;
    clearTimeout(timer);
  }
}
