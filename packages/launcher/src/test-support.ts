import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { processesWithVariable } from './process-group.js';
import { tsxFlags } from './rank-command.js';

const MARK = 'LAUNCHER_TEST_MARK';
const CLI = new URL('./cli.ts', import.meta.url).href;

export interface Finished {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A folder for one test's scripts, and a mark in the environment by which every process started from it can be found. */
export class Sandbox {
  readonly folder = mkdtempSync(join(tmpdir(), 'launcher-'));
  readonly #mark = randomUUID();
  readonly env = { ...process.env, [MARK]: this.#mark };

  /** Writes a script that may `report(name, value)`, which leaves a file for {@link reported}, and await `seen(name)`, another rank's report. */
  script(name: string, body: string): string {
    const path = join(this.folder, name);
    const prelude = `
      import * as sandboxFs from 'node:fs';
      const sandboxFile = (name) => ${JSON.stringify(this.folder)} + '/' + name + '.json';
      const report = (name, value) => {
        sandboxFs.writeFileSync(sandboxFile(name) + '.part', JSON.stringify(value));
        sandboxFs.renameSync(sandboxFile(name) + '.part', sandboxFile(name));
      };
      const seen = async (name) => {
        while (!sandboxFs.existsSync(sandboxFile(name))) await new Promise((done) => setTimeout(done, 10));
      };
    `;
    writeFileSync(path, prelude + body);
    return path;
  }

  /** Waits for what a script reported under this name. */
  async reported<T>(name: string): Promise<T> {
    const path = join(this.folder, `${name}.json`);
    await until(() => existsSync(path), `the report ${name}`);
    return JSON.parse(readFileSync(path, 'utf8')) as T;
  }

  /** The words that run the `deepspeed` command from source. tsx comes by an import, not by flags of node: those the ranks would inherit. */
  command(...args: string[]): [string, ...string[]] {
    const boot = join(this.folder, 'deepspeed.mjs');
    writeFileSync(boot, `import ${JSON.stringify(tsxFlags()[1])};\nawait import(${JSON.stringify(CLI)});\n`);
    return [process.execPath, boot, ...args];
  }

  /** Starts the `deepspeed` command. */
  cli(...args: string[]): { child: ChildProcess; finished: Promise<Finished> } {
    const [node, ...rest] = this.command(...args);
    const child = spawn(node, rest, { cwd: this.folder, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    const finished = new Promise<Finished>((done) => child.once('close', (code, signal) => done({ code, signal, stdout, stderr })));
    return { child, finished };
  }

  /** Waits until no process started from this sandbox is left: launcher, reaper, ranks and all that they started. */
  async empty(): Promise<void> {
    await until(() => processesWithVariable(MARK, this.#mark).length === 0, 'all processes to be gone');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of processesWithVariable(MARK, this.#mark)) process.kill(pid, 'SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Polls; fails after ten seconds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition(); await sleep(20)) {
    if (Date.now() > deadline) throw new Error(`Waited 10 s for ${what}.`);
  }
}

/** Whether a process still runs; a zombie does not. */
export function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // The state follows the command's name, which is in parentheses and may hold anything.
    return !/\) Z [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' && process.platform !== 'linux';
  }
}
