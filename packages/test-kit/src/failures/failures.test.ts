import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { type LaunchResult, start } from '@deepspeed-ts/launcher';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type RankOutcome, runWorld, type SpawnOptions, spawnWorld, type World } from '../spawn-world.js';
import type { FailingArgs } from './failing-rank.js';

const usable = { train_micro_batch_size_per_gpu: 1, optimizer: { type: 'AdamW', params: { lr: 1e-3 } } };
const hugeSteps = { optimizer: { type: 'AdamW', params: { lr: 1e30 } } };

let sharedMemory: string[];
beforeAll(() => {
  sharedMemory = readdirSync('/dev/shm');
});
afterAll(() => {
  expect(readdirSync('/dev/shm'), 'nothing is left in shared memory').toEqual(sharedMemory);
});

// No rank here is stopped by another: each must notice by itself, tell what happened, and end.
describe('what every rank says by itself', () => {
  const begin = (size: number, options: SpawnOptions<FailingArgs> = {}): Promise<World<never>> =>
    spawnWorld(new URL('./world-rank.ts', import.meta.url), size, { args: {}, ...options });

  test('a rank that is killed is named by all others', async () => {
    const world = await begin(3);
    for (const { rank } of world.ranks) await world.heard(rank, 'step 2');
    world.kill(1);
    const [first, killed, last] = await world.outcomes();
    expect(killed!.signal).toBe('SIGKILL');
    for (const outcome of [first!, last!])
      expectError(outcome, { name: 'PeerLostError', peer: 1, message: /lost rank 1 .*process has ended/ });
  });

  test('a loss that is not a number ends training on all ranks', async () => {
    const outcomes = await (await begin(2, { args: { config: hugeSteps } })).outcomes();
    for (const outcome of outcomes) {
      expectError(outcome, {
        name: 'NonFiniteError',
        message: /the loss of step 2 is NaN; .* weights are those of step 1\. Lower the learning rate/,
      });
    }
  });

  test('a token that is not in the vocabulary is told by its rank, and the others tell which rank has failed', async () => {
    const [other, guilty] = await (await begin(2, { args: { badTokenOn: 1 } })).outcomes();
    expectError(guilty!, { name: 'KernelError', message: /embedding: id 23 at position 0 .* 0 <= id < 23/ });
    expectError(other!, { name: 'PeerLostError', peer: 1, message: /rank 1 .*its own computation has failed/ });
  });

  test('ranks whose models call for different units at one time are told so', async () => {
    for (const outcome of await (await begin(2, { args: { model: 'parting' } })).outcomes()) {
      const unit = String.raw`all_gather #\d+ \(slices of \d+ f32\) for 'gather \d+ [\w.]+'`;
      const calls = new RegExp(`rank 0 ${unit}, rank 1 ${unit}`);
      expectError(outcome, { name: 'CollectiveMismatchError', message: calls });
      for (const rank of [0, 1])
        expect(outcome.error!.message).toMatch(new RegExp(`\nrank ${rank} called it from\n(.*\n)*?.*zero/models\\.ts`));
    }
  });

  test('ranks that disagree about the world size all say so', async () => {
    const outcomes = await (await begin(2, { env: (rank) => ({ WORLD_SIZE: String(2 + rank) }) })).outcomes();
    const message = /rank 0 has WORLD_SIZE=2, rank 1 .* has 3/;
    for (const outcome of outcomes) expectError(outcome, { name: 'RendezvousError', message }, false);
  });

  test('a port that another program holds is told by all ranks', async () => {
    const stranger = createServer().listen(0, '127.0.0.1');
    await once(stranger, 'listening');
    const { port } = stranger.address() as { port: number };
    const [first, second] = await (await begin(2, { env: { MASTER_PORT: String(port) } })).outcomes();
    stranger.close();
    expectError(first!, { name: 'RendezvousError', message: /can't listen at .*: Address already in use.*another MASTER_PORT/ }, false);
    expectError(second!, { name: 'RendezvousError', message: /what listens there is not rank 0 .*free MASTER_PORT/ }, false);
  });

  test('a config that cannot be used is refused by all ranks, with what it should be', async () => {
    const configs = [
      { ...usable, zero_optimisation: { stage: 3 } },
      { ...usable, zero_optimization: { stage: 4 } },
      { ...usable, train_batch_size: 33 },
    ];
    const ranks = await runWorld<string[][], object[]>(new URL('./config-rank.ts', import.meta.url), 2, { args: configs });
    for (const problems of ranks) {
      expect(problems).toEqual([
        [`zero_optimisation: unknown key; did you mean "zero_optimization"?`],
        [expect.stringMatching(/^zero_optimization\.stage: expected 0, 1, 2 or 3 .*, got 4$/)],
        [expect.stringMatching(/^train_batch_size: expected a multiple of .* = 2, got 33; the nearest are 32 and 34$/)],
      ]);
    }
  });
});

describe('under the launcher', () => {
  test('a rank that is killed ends the job with its signal', async () => {
    const { result, output } = await runJob({}, (pids) => process.kill(pids[1]!, 'SIGKILL'));
    expect(result).toMatchObject({ exitCode: 137, failure: { rank: 1, signal: 'SIGKILL' } });
    expect(output).toContain('step 2');
  });

  test.each<[string, FailingArgs, RegExp]>([
    [
      'a config typo',
      { config: { zero_optimisation: { stage: 3 } } },
      /ConfigError: zero_optimisation: unknown key; did you mean "zero_optimization"\?/,
    ],
    ['a loss that is not a number', { config: hugeSteps }, /NonFiniteError: rank \d: the loss of step 2 is NaN/],
  ])('%s ends the job with code 1 and the reason', async (_, args, reason) => {
    const { result } = await runJob(args);
    expect(result.exitCode).toBe(1);
    expect(result.failure!.stderrTail.join('\n')).toMatch(reason);
  });
});

interface ExpectedError {
  readonly name: string;
  readonly peer?: number;
  readonly message: RegExp;
}

function expectError({ rank, code, error, output }: RankOutcome<never>, { message, ...expected }: ExpectedError, hadEngine = true): void {
  expect(error, output).toMatchObject({ ...expected, message: expect.stringMatching(message) });
  expect(code, `exit code of rank ${rank}`).toBe(1);
  if (hadEngine) expect(output).toContain('0 buffers are alive after dispose()');
}

/** Two ranks of the script under the launcher; `disturb` is called with their process ids once rank 0 has taken two steps. */
async function runJob(args: FailingArgs, disturb?: (pids: readonly number[]) => void): Promise<{ result: LaunchResult; output: string }> {
  const lines: string[] = [];
  const job = await start({
    script: fileURLToPath(new URL('./launched-script.ts', import.meta.url)),
    ranks: 2,
    args: [JSON.stringify(args)],
    nodeFlags: ['--conditions=@deepspeed-ts/source'],
    onLine: ({ rank, text }) => {
      lines.push(text);
      if (rank === 0 && text === 'step 2') disturb?.(job.pids);
    },
  });
  const result = await job.finished;
  for (const pid of job.pids) expect(() => process.kill(pid, 0), `process ${pid} has ended`).toThrow('ESRCH');
  return { result, output: lines.join('\n') };
}
