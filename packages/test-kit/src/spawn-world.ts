import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { bundleOf } from './rank-bundle.js';

/** What a rank's program gets. */
export interface RankContext<A = unknown> {
  readonly rank: number;
  readonly size: number;
  readonly args: A;
  /** The default export of the module of {@link SpawnOptions.given}. */
  given(): Promise<unknown>;
  /** Tells the test how far this rank is; see {@link World.heard}. */
  say(word: string): void;
}

/** The default export of a module that ranks run. Results and arguments may hold typed arrays, maps and bigints. */
export type RankProgram<A = unknown, T = unknown> = (context: RankContext<A>) => Promise<T>;

/** An error that a rank's program threw, as data. */
export interface RankError {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly rank?: number;
  readonly peer?: number;
}

export interface RankOutcome<T> {
  readonly rank: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly value?: T;
  readonly error?: RankError;
  /** Everything it wrote to stdout and stderr. */
  readonly output: string;
}

export interface SpawnOptions<A> {
  readonly args?: A;
  /** A module for programs that take a part of what they do from their test. */
  readonly given?: URL;
  /** Variables for every rank, or for each; they come after RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. */
  readonly env?: Readonly<Record<string, string>> | ((rank: number) => Readonly<Record<string, string>>);
  /** After this many milliseconds every rank that still runs is killed. Default 60000. */
  readonly timeoutMs?: number;
}

export type RankMessage = { say: string } | { value: unknown } | { error: RankError };

/**
 * Runs a module's default export as `size` processes of one world on this machine. Ranks end when their program does; none
 * outlives the test process.
 */
export async function spawnWorld<T, A = unknown>(module: URL, size: number, options: SpawnOptions<A> = {}): Promise<World<T>> {
  const [bundle, port] = await Promise.all([bundleOf(module, options.given), freePort()]);
  const { env = {}, timeoutMs = 60_000, args } = options;
  const ranks = Array.from({ length: size }, (_, rank) => {
    const place = { RANK: rank, LOCAL_RANK: rank, WORLD_SIZE: size, LOCAL_WORLD_SIZE: size, MASTER_ADDR: '127.0.0.1', MASTER_PORT: port };
    const words = Object.entries(place).map(([name, value]) => [name, String(value)]);
    const child = fork(bundle, {
      execArgv: ['--enable-source-maps'],
      env: { ...process.env, NODE_OPTIONS: '', ...Object.fromEntries(words), ...(typeof env === 'function' ? env(rank) : env) },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'advanced',
    });
    child.send({ args });
    return new Rank<T>(rank, child);
  });
  return new World(ranks, timeoutMs);
}

/** {@link spawnWorld}, when every rank should succeed: their results in rank order. */
export async function runWorld<T, A = unknown>(module: URL, size: number, options: SpawnOptions<A> = {}): Promise<T[]> {
  const world = await spawnWorld<T, A>(module, size, options);
  return world.values();
}

/** The processes of one world. */
export class World<T> {
  readonly #timer: NodeJS.Timeout;
  readonly #timeoutMs: number;
  #late = false;

  constructor(
    readonly ranks: readonly Rank<T>[],
    timeoutMs: number,
  ) {
    this.#timeoutMs = timeoutMs;
    this.#timer = setTimeout(() => {
      this.#late = true;
      this.kill();
    }, timeoutMs);
  }

  /** Resolves when a rank has said this word. */
  async heard(rank: number, word: string): Promise<void> {
    await this.ranks[rank]!.heard(word);
  }

  /** SIGKILL, to one rank or to all. */
  kill(rank?: number): void {
    for (const { child } of rank === undefined ? this.ranks : [this.ranks[rank]!]) child.kill('SIGKILL');
  }

  /** How each rank ended, once all have. */
  async outcomes(): Promise<RankOutcome<T>[]> {
    const outcomes = await Promise.all(this.ranks.map(({ ended }) => ended));
    clearTimeout(this.#timer);
    if (this.#late) throw new Error(`the ranks did not end within ${this.#timeoutMs} ms\n${outcomes.map(report).join('\n')}`);
    return outcomes;
  }

  /** The results of all ranks; throws when one failed. */
  async values(): Promise<T[]> {
    // The others would wait for a rank that has failed.
    for (const { ended } of this.ranks) void ended.then(({ code }) => code === 0 || this.kill());
    const outcomes = await this.outcomes();
    const bad = outcomes.find(({ error }) => error) ?? outcomes.find(({ code }) => code !== 0);
    if (bad) throw new Error(`rank ${bad.rank} failed: ${bad.error?.message ?? ''}\n${outcomes.map(report).join('\n')}`);
    return outcomes.map(({ value }) => value as T);
  }
}

/** One process of a world. */
export class Rank<T> {
  readonly ended: Promise<RankOutcome<T>>;
  readonly #said = new Set<string>();

  constructor(
    readonly rank: number,
    readonly child: ChildProcess,
  ) {
    this.ended = this.#follow();
  }

  async heard(word: string): Promise<void> {
    while (!this.#said.has(word)) {
      if (this.child.exitCode !== null || this.child.signalCode !== null)
        throw new Error(`rank ${this.rank} ended without saying '${word}'`);
      await Promise.race([once(this.child, 'message'), once(this.child, 'exit')]);
    }
  }

  async #follow(): Promise<RankOutcome<T>> {
    let output = '';
    let result: { value?: T; error?: RankError } = {};
    for (const stream of [this.child.stdout!, this.child.stderr!]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    this.child.on('message', (message: RankMessage) => {
      if ('say' in message) this.#said.add(message.say);
      else result = message as { value: T } | { error: RankError };
    });
    const [code, signal] = (await once(this.child, 'close')) as [number | null, NodeJS.Signals | null];
    return { rank: this.rank, code, signal, ...result, output };
  }
}

/** A TCP port on loopback that nobody uses now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

function report({ rank, code, signal, error, output }: RankOutcome<unknown>): string {
  return `[rank ${rank}] code ${code}, signal ${signal}${error ? `, ${error.name}: ${error.message}` : ''}\n${output}`;
}
