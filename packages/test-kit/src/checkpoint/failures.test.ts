import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WorldOfOne } from '@deepspeed-ts/core';
import { afterAll, expect, test } from 'vitest';
import { runWorld, spawnWorld } from '../spawn-world.js';
import { close } from '../zero/training-run.js';
import type { FailingSaveArgs, SaveOutcome } from './failing-save-rank.js';
import { hashOfState, open, trainMicro } from './resumable-run.js';

const directory = mkdtempSync(join(tmpdir(), 'failing-save-'));
const at = (...parts: string[]) => join(directory, ...parts);
const mounts: string[] = [];
afterAll(() => {
  for (const mount of mounts) execFileSync('umount', [mount]);
  rmSync(directory, { recursive: true, force: true });
});

const program = new URL('./failing-save-rank.ts', import.meta.url);
const run = { model: 'odd', stage: 2, checkpoint: { tag_validation: 'Fail' } } as const;

test('what a save meets on one rank is told by both, and the checkpoint before stays', async () => {
  // A disk that has room for one checkpoint, and one that is read-only, where this process may make them.
  const canMount = mount('small', 'size=100k') && mount('read-only', 'ro');
  writeFileSync(at('file'), 'not a directory');
  const saves: FailingSaveArgs['saves'] = [
    { directory: at('saves'), tag: 'good' },
    { directory: at('saves'), tag: 'limited', disturb: 'limit files of rank 1' },
    { directory: at('saves'), tag: 'tag', disturb: 'other tag on rank 1' },
    { directory: at('saves'), tag: 'apart', disturb: 'other directory on rank 1' },
    { directory: at('file'), tag: 'nowhere' },
    { directory: '/proc/checkpoints', tag: 'nowhere' },
    ...(canMount
      ? [
          { directory: at('small'), tag: 'first' },
          { directory: at('small'), tag: 'second' },
          { directory: at('read-only'), tag: 'nowhere' },
        ]
      : []),
    { directory: at('saves'), tag: 'last' },
  ];
  const ranks = await runWorld<SaveOutcome[], FailingSaveArgs>(program, 2, { args: { run, saves } });
  expect(ranks[1]).toEqual(ranks[0]);
  const outcomes = new Map(ranks[0]!.map((outcome, i) => [`${saves[i]!.directory} ${saves[i]!.tag}`, outcome]));
  const expectFailure = (path: string, tag: string, message: RegExp, code = 'ERR_CHECKPOINT_WRITE') =>
    expect(outcomes.get(`${path} ${tag}`)).toMatchObject({ code, message: expect.stringMatching(message) });

  expect(outcomes.get(`${at('saves')} good`)).toMatchObject({ saved: true });
  expect(outcomes.get(`${at('saves')} last`)).toMatchObject({ saved: true });
  const limited = /^\[rank 1\] can't write .*\.safetensors: the file is larger than .*Checkpoints saved before are untouched$/;
  expectFailure(at('saves'), 'limited', limited);
  expectFailure(
    at('saves'),
    'tag',
    /expected the same on every rank, got 'tag-0' on rank 0 and 'tag-1' on rank 1/,
    'ERR_CHECKPOINT_ARGUMENT',
  );
  expectFailure(
    at('saves'),
    'apart',
    /^\[rank 1\] .*saves-1.* is not to be seen here: all ranks must save to one directory of one file system/,
  );
  expectFailure(at('file'), 'nowhere', /^\[rank 0\] can't write .*file: a part of the path is a file/);
  expectFailure('/proc/checkpoints', 'nowhere', /^\[rank 0\] can't write \/proc\/checkpoints: /);
  expect(readdirSync(at('saves')).sort()).toEqual(['good', 'last', 'latest']);
  if (canMount) {
    expectFailure(at('read-only'), 'nowhere', /^\[rank 0\] can't write .*: the file system is read-only; save elsewhere/);
    expect(outcomes.get(`${at('small')} first`)).toMatchObject({ saved: true });
    expectFailure(at('small'), 'second', /^\[rank \d\] can't write .*\/small\/\.saving-second.*: the disk is full; free some space/);
    expect(readdirSync(at('small')).sort()).toEqual(['first', 'latest']);
    await expectLoads(at('small'), outcomes.get(`${at('small')} first`)!);
  } else console.warn('no right to mount a file system: the cases of a full disk and of a read-only one are left out');
  await expectLoads(at('saves'), outcomes.get(`${at('saves')} last`)!);
});

test('a rank that ends in the middle of a save fails it for the others', async () => {
  const saves: FailingSaveArgs['saves'] = [
    // Tags may differ here: that of rank 0 is taken.
    { directory: at('peer'), tag: 'good', disturb: 'other tag on rank 1' },
    { directory: at('peer'), tag: 'cut', disturb: 'end rank 1' },
  ];
  const args: FailingSaveArgs = { run: { ...run, large: true, checkpoint: { tag_validation: 'Warn' } }, saves };
  const [first, second] = await (await spawnWorld<SaveOutcome[], FailingSaveArgs>(program, 2, { args })).outcomes();
  expect(first!.output).toContain(
    "tag: expected the same on every rank, got 'good-0' on rank 0 and 'good-1' on rank 1; that of rank 0 is taken",
  );
  expect(second!.signal).toBe('SIGKILL');
  expect(first!.error, first!.output).toMatchObject({
    code: 'ERR_CHECKPOINT_PEER',
    message: expect.stringMatching(/cut.* was not finished: the process of rank 1 has ended\. Checkpoints saved before are untouched/),
  });
  expect(readdirSync(at('peer')).sort()).toEqual(['good-0', 'latest']);
  expect(readFileSync(at('peer', 'latest'), 'utf8')).toBe('good-0');
});

test('a disk that fills up while threads write leaves the checkpoint before, and room for the next', async () => {
  if (!mount('filling', 'size=12m')) return console.warn('no right to mount a file system: the case of a disk that fills up is left out');
  const resumable = await open({ ...run, large: true, stage: 0 }, new WorldOfOne());
  const { engine } = resumable;
  const save = async (tag: string) => (await engine.saveCheckpoint(at('filling'), { tag, keepLast: 1 })).finished;
  await save('good');
  const hash = await hashOfState(engine);
  await trainMicro(resumable, 1);
  await expect(save('next')).rejects.toThrow(
    /can't write .*\.saving-next.*\.safetensors: the disk is full; free some space or save elsewhere/,
  );
  expect(readdirSync(at('filling')).sort()).toEqual(['good', 'latest']);
  await engine.loadCheckpoint(at('filling'));
  expect(await hashOfState(engine)).toBe(hash);
  rmSync(at('filling', 'good'), { recursive: true });
  await save('next');
  await close(engine);
});

test('a damaged shard is named by both ranks, whichever of them has looked at it', async () => {
  const path = at('saves', 'good', 'model-00002-of-00002.safetensors');
  const bytes = readFileSync(path);
  // In its header, where the rank that does not check it would stumble otherwise.
  bytes[20]! ^= 1;
  writeFileSync(path, bytes);
  const load = { run, load: at('saves'), tag: 'good' };
  const outcomes = await (await spawnWorld(new URL('./resumable-rank.ts', import.meta.url), 2, { args: [load] })).outcomes();
  for (const { error, output } of outcomes) {
    expect(error, output).toMatchObject({
      code: 'ERR_CHECKPOINT_CORRUPT',
      message: expect.stringContaining(`${path} is damaged: the CRC-32 of bytes 0 to`),
    });
  }
});

async function expectLoads(path: string, outcome: SaveOutcome): Promise<void> {
  const { engine } = await open({ model: 'odd', stage: 1 }, new WorldOfOne());
  await engine.loadCheckpoint(path);
  expect(await hashOfState(engine)).toBe('hash' in outcome && outcome.hash);
  await close(engine);
}

function mount(name: string, options: string): boolean {
  mkdirSync(at(name));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', at(name)], { stdio: 'ignore' });
    mounts.push(at(name));
    return true;
  } catch {
    return false;
  }
}
