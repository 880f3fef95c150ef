import { type ChildProcess, spawn } from 'node:child_process';
import { writeSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { LineSplitter } from './lines.js';
import { signalGroup } from './process-group.js';

/** One line of output, without its newline. */
export interface RankLine {
  rank: number;
  stream: 'stdout' | 'stderr';
  text: string;
}

/** How a rank ended: by exit code, or by a signal. */
export interface RankExit {
  rank: number;
  pid: number;
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface RankProcessOptions {
  rank: number;
  /** node flags, script and script arguments. */
  args: readonly string[];
  cwd: string;
  env: NodeJS.ProcessEnv;
  /** Streams that the rank shares with this process instead of handing its lines to `onLine`; stdin is otherwise empty. */
  inherit: { stdin: boolean; stdout: boolean; stderr: boolean };
  onLine: (line: RankLine) => void;
  /** Open file that gets both streams as they come. */
  logFile: number | undefined;
}

/**
 * The shell waits for a line on descriptor 3, then becomes node under the same process id. Should the launcher die first, even between
 * starting this process and telling the reaper of it, the read meets the end of the pipe and the script never runs.
 */
const GATE = 'read -r go <&3 && exec "$@" 3<&-';

/** How much of a rank's stderr is kept for the report of its failure. */
const TAIL_LINES = 20;

/** One rank: a process in a session and process group of its own, held at a gate until {@link open}. */
export class RankProcess {
  readonly rank: number;
  /** Its last lines on stderr, when not inherited. */
  readonly stderrTail: string[] = [];
  /** What V8 said before it aborted; the stack it prints next can push that out of the tail. */
  fatalError: string | undefined;
  /** Resolves to the process id, which is the group's id too; rejects when the system refuses another process. */
  readonly spawned: Promise<number>;
  readonly exited: Promise<RankExit>;
  readonly #child: ChildProcess;
  #logFile: number | undefined;
  readonly #outputs: { stream: Readable; closed: Promise<void> }[] = [];

  constructor(private readonly options: RankProcessOptions) {
    const { rank, args, cwd, env, inherit } = options;
    this.rank = rank;
    this.#logFile = options.logFile;
    const child = spawn('/bin/sh', ['-c', GATE, 'deepspeed-rank', process.execPath, ...args], {
      cwd,
      env,
      detached: true,
      stdio: [inherit.stdin ? 'inherit' : 'ignore', inherit.stdout ? 'inherit' : 'pipe', inherit.stderr ? 'inherit' : 'pipe', 'pipe'],
    });
    this.#child = child;
    this.spawned = new Promise((done, fail) => {
      child.once('spawn', () => done(child.pid!));
      child.once('error', fail);
    });
    this.exited = new Promise((done) => {
      child.once('exit', (code, signal) => done({ rank, pid: child.pid!, code, signal }));
    });
    // Out of file descriptors, node makes no streams at all; `spawned` tells.
    this.#gate?.on('error', () => {});
    this.#read(child.stdout ?? null, 'stdout');
    this.#read(child.stderr ?? null, 'stderr');
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Lets the script run. */
  open(): void {
    this.#gate?.end('go\n');
  }

  /** Signals the rank and the processes it started in its group; false when none is left. */
  signal(signal: NodeJS.Signals): boolean {
    return this.#child.pid !== undefined && signalGroup(this.#child.pid, signal);
  }

  /** Resolves when all output has been delivered, or after `patienceMs` if some other process still holds the pipe. */
  async drained(patienceMs: number): Promise<void> {
    const timer = setTimeout(() => this.#outputs.forEach(({ stream }) => void stream.destroy()), patienceMs);
    await Promise.all(this.#outputs.map(({ closed }) => closed));
    clearTimeout(timer);
  }

  get #gate(): Writable | undefined {
    return this.#child.stdio?.[3] as Writable | undefined;
  }

  #read(stream: Readable | null, name: RankLine['stream']): void {
    if (stream === null) return;
    const { rank, onLine } = this.options;
    const lines = new LineSplitter((text) => {
      if (name === 'stderr' && this.stderrTail.push(text) > TAIL_LINES) this.stderrTail.shift();
      if (name === 'stderr' && text.startsWith('FATAL ERROR: ')) this.fatalError = text;
      onLine({ rank, stream: name, text });
    });
    stream.on('data', (chunk: Buffer) => {
      this.#log(chunk);
      lines.push(chunk);
    });
    const closed = finished(stream).then(
      () => lines.end(),
      () => lines.end(),
    );
    this.#outputs.push({ stream, closed });
  }

  #log(chunk: Buffer): void {
    if (this.#logFile === undefined) return;
    try {
      writeSync(this.#logFile, chunk);
    } catch (error) {
      // A full disk must not end the training.
      this.#logFile = undefined;
      this.options.onLine({ rank: this.rank, stream: 'stderr', text: `deepspeed: this rank's log ends here: ${(error as Error).message}` });
    }
  }
}
