import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { collectiveCases } from './collective-reference.js';
import type { ErrorData, Failure } from './communicator-failures.js';
import type { Scenario, ScenarioArgs } from './communicator-scenarios.js';
import { type RankOutcome, spawnWorld, type World } from './spawn-world.js';

export interface CommunicatorContractOptions {
  /** Module whose default export opens a rank: see `OpenRank`. */
  readonly open: URL;
  readonly sizes: readonly number[];
  /** World size of the tests in which ranks fail; without it there are none. */
  readonly failureSize?: number;
  /** Variables for each rank, to force a transport, say. */
  readonly env?: (rank: number) => Readonly<Record<string, string>>;
  /** The variable (in milliseconds) that bounds how long a peer may be alive but silent. */
  readonly silenceVariable: string;
  /** Libraries in the process open and keep sockets and descriptors of their own, so those that are left over prove nothing. */
  readonly foreignDescriptors?: boolean;
  /** `max` and `min` may drop a NaN: those cases then have none. */
  readonly dropsNaNs?: boolean;
}

interface RankResult {
  readonly results: Readonly<Record<string, unknown>>;
  readonly liveBuffers: number;
  readonly leftOver: readonly string[];
}

const program = new URL('./communicator-scenarios.ts', import.meta.url);
const times = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Tests an implementation of `Communicator` with real processes. */
export function communicatorContract(name: string, options: CommunicatorContractOptions): void {
  const start = (size: number, args: ScenarioArgs, extra: Record<string, string> = {}): Promise<World<RankResult>> =>
    spawnWorld(program, size, {
      args: { foreignDescriptors: options.foreignDescriptors, ...args },
      given: options.open,
      env: (rank) => ({ ...options.env?.(rank), ...extra }),
    });
  for (const size of options.sizes) describe(`${name}, ${size} ranks`, () => agreeingRanks(size, start, options));
  const { failureSize, silenceVariable } = options;
  if (failureSize) describe(`${name}, ${failureSize} ranks that fail`, () => failingRanks(failureSize, silenceVariable, start));
}

interface Disagreements {
  readonly mismatches: readonly ErrorData[];
  readonly closed: ErrorData | null;
  readonly after: Failure;
}

type Start = (size: number, args: ScenarioArgs, extra?: Record<string, string>) => Promise<World<RankResult>>;

function agreeingRanks(size: number, start: Start, { dropsNaNs = false }: CommunicatorContractOptions): void {
  let ranks: RankResult[];
  const resultsOf = <T>(scenario: Scenario): T[] => ranks.map(({ results }) => results[scenario] as T);

  beforeAll(async () => {
    const cases = collectiveCases(60, size, 1000 * size).map((c) => ({ ...c, finite: dropsNaNs && (c.op === 'max' || c.op === 'min') }));
    ranks = await (await start(size, { scenarios: ['cases', 'twoWays', 'order', 'overlap', 'ring', 'split'], cases })).values();
  });

  test('every collective gives bit for bit what plain loops in rank order give', () => {
    expect(resultsOf<string[]>('cases').flat()).toEqual([]);
  });

  test('all-reduce has the same bits as reduce-scatter and all-gather, on every rank', () => {
    const [first, ...others] = resultsOf<Uint8Array[]>('twoWays');
    for (let i = 0; i < first!.length; i += 2) expect(first![i + 1]).toEqual(first![i]);
    for (const other of others) expect(other).toEqual(first);
  });

  test('a collective sees the launches before it, and launches after wait() see the collective', () => {
    const ranksSum = (size * (size - 1)) / 2;
    const expected = times(20).map((step) => 2 * (ranksSum + size * step));
    for (const sums of resultsOf('order')) expect(sums).toEqual(expected);
  });

  test('compute goes on beside a collective that still lacks a rank', () => {
    expect(resultsOf('overlap')).toEqual(times(size).map(() => 42 * size));
  });

  test('ranks that all send before they receive do not deadlock', () => {
    for (const [rank, got] of resultsOf('ring').entries()) {
      const from = 100 * ((rank + size - 1) % size);
      expect(got).toEqual([
        [from, from],
        [-1, -1],
        [from + 2, from + 2],
        [from + 3, from + 3],
      ]);
    }
  });

  test('split makes groups by colour in the order of their keys, which work beside their parent in any order', () => {
    const groups = [0, 1].map((parity) => times(size).filter((rank) => rank % 2 === parity));
    expect(resultsOf('split')).toEqual(
      times(size).map((rank) => {
        const group = groups[rank % 2]!;
        const sum = group.reduce((a, b) => a + b, 0);
        return { rank: group.length - 1 - group.indexOf(rank), size: group.length, sum, both: [size, 2 * size] };
      }),
    );
  });

  test('close() gives back descriptors, threads and shared mappings', () => {
    for (const { liveBuffers, leftOver } of ranks) expect({ liveBuffers, leftOver }).toEqual({ liveBuffers: 0, leftOver: [] });
  });
}

function failingRanks(size: number, silenceVariable: string, start: Start): void {
  const last = size - 1;

  let ranks: RankResult[];
  let disagreements: Disagreements[];
  beforeAll(async () => {
    ranks = await (await start(size, { scenarios: ['disagreements'] })).values();
    disagreements = ranks.map(({ results }) => results.disagreements as Disagreements);
  }, 240_000);

  test('ranks that call different collectives all get an error that shows every call', () => {
    const calls = [
      /rank 0 all_?reduce .*10 f32.*rank \d all_?reduce .*11 f32/i,
      /rank 0 all_?reduce .*10 f32.*rank \d all_?reduce .*10 bf16/i,
      /rank 0 all_?reduce .*sum.*rank \d all_?reduce .*max/i,
      /rank 0 broadcast .*rank 0.*rank \d broadcast .*rank 1/i,
      /rank 0 all_?reduce.*rank \d barrier/i,
      /rank 0 all_?gather .*for 'gather 0'.*rank \d all_?gather .*for 'gather 1'/i,
      /rank 0 all_?gather .*for 'gather 1'.*rank \d all_?gather .*for 'gather 2'/i,
    ];
    for (const [rank, { mismatches }] of disagreements.entries()) {
      for (const [i, message] of calls.entries()) {
        expect(mismatches[i]).toMatchObject({ name: 'CollectiveMismatchError', rank, message: expect.stringMatching(message) });
      }
    }
  });

  test('and where every rank made its call', () => {
    for (const { mismatches } of disagreements) {
      for (const { message } of mismatches) {
        for (const rank of times(size)) expect(message).toMatch(new RegExp(`\nrank ${rank} called it from\n.*communicator-failures`));
      }
    }
  });

  test('a group that failed stays failed, and so does what waits for its work', () => {
    for (const [rank, { after }] of disagreements.entries()) {
      expect(after.next).toMatchObject({ name: 'CollectiveMismatchError', rank });
      expect(after.read).toMatchObject({ name: 'CollectiveMismatchError', rank });
    }
  });

  test('close() gives everything back after failures too', () => {
    for (const { liveBuffers, leftOver } of ranks) expect({ liveBuffers, leftOver }).toEqual({ liveBuffers: 0, leftOver: [] });
  });

  test('a rank that has closed its communicator is named when others still need it', () => {
    for (const [rank, { closed }] of disagreements.entries()) {
      if (rank === last) expect(closed).toBeNull();
      else
        expect(closed).toMatchObject({ name: 'PeerLostError', rank, peer: last, message: expect.stringMatching(/barrier #\d+.*closed/) });
    }
  });

  test.each<[string, Scenario]>([
    ['while the others wait for it', 'killed'],
    ['in the middle of a large collective', 'killedBusy'],
  ])('a rank that is killed %s is named to all others within seconds, and leaves nothing behind', async (_when, scenario) => {
    const shmBefore = sharedMemory();
    const world = await start(size, { scenarios: [scenario] });
    for (const rank of times(size)) await world.heard(rank, 'together');
    await sleep(200); // into the collective
    world.kill(last);
    const outcomes = await world.outcomes();
    expect(outcomes[last]!.signal).toBe('SIGKILL');
    expectLost(outcomes.slice(0, -1), scenario, last, /all_?reduce #\d+.*(process has ended|connection broke)/i);
    expect(sharedMemory()).toEqual(shmBefore);
  });

  test('a rank that is alive but silent is named after the time allowed', async () => {
    const outcomes = await (await start(size, { scenarios: ['silent'] }, { [silenceVariable]: '1000' })).outcomes();
    expectLost(outcomes.slice(0, -1), 'silent', last, /alive but silent/);
  });
}

/** What has a name in shared memory; NCCL's files are its own affair. */
function sharedMemory(): string[] {
  return readdirSync('/dev/shm').filter((name) => !name.startsWith('nccl-'));
}

function expectLost(outcomes: readonly RankOutcome<RankResult>[], scenario: Scenario, peer: number, message: RegExp): void {
  for (const { rank, value, output } of outcomes) {
    const failure = value?.results[scenario] as Failure | undefined;
    expect(failure?.first, output).toMatchObject({ name: 'PeerLostError', rank, peer, message: expect.stringMatching(message) });
    expect(failure?.next).toMatchObject({ name: 'PeerLostError', peer });
    expect(failure?.read).toMatchObject({ name: 'PeerLostError', peer });
    expect(value?.liveBuffers).toBe(0);
  }
}
