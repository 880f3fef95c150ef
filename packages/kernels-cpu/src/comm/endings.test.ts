import { spawnWorld } from '@deepspeed-ts/test-kit';
import { expect, test } from 'vitest';
import type { Ending } from './rank-endings.js';

const program = new URL('./rank-endings.ts', import.meta.url);

test('a process that never closes its communicator still ends, and its peers hear of it', async () => {
  const outcomes = await (await spawnWorld<string, Ending>(program, 2, { args: 'leaves' })).outcomes();
  expect(outcomes).toMatchObject([
    { code: 0, value: 'left without close()' },
    { code: 0, value: expect.stringMatching(/^PeerLostError: rank 1 lost rank 0 in all_reduce/) },
  ]);
});

test("a rank whose kernel failed reports that, and its peers get no result made from what it didn't compute", async () => {
  const outcomes = await (await spawnWorld<string, Ending>(program, 3, { args: 'kernelFails' })).outcomes();
  expect(outcomes.map(({ value }) => value)).toEqual([
    expect.stringMatching(/^KernelError: \[embedding\] .*99/),
    ...[1, 2].map(() => expect.stringMatching(/^PeerLostError: rank 0 can't take part in all_reduce .*: its own computation has failed/)),
  ]);
});

test('ranks that disagree while their JavaScript is blocked still hear every call, though not where it came from', async () => {
  const outcomes = await (await spawnWorld<string, Ending>(program, 2, { args: 'disagreesBlocked' })).outcomes();
  for (const { value } of outcomes) {
    expect(value).toMatch(/^CollectiveMismatchError: .*rank 0 all_reduce .* for 'reduce 0', rank 1 all_reduce .* for 'reduce 1'/);
    expect(value).toMatch(/rank 1 called it from\n {4}\(not known: its JavaScript is busy\)/);
  }
});
