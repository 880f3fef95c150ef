import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { uniforms, WorldOfOne } from '@deepspeed-ts/core';
import { afterAll, expect, test } from 'vitest';
import { spawnWorld } from '../spawn-world.js';
import { close } from '../zero/training-run.js';
import { hashOfState, open } from './resumable-run.js';
import type { SavingArgs } from './saving-rank.js';

const directory = mkdtempSync(join(tmpdir(), 'kill-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const INSTANTS = 50;

test('killing all ranks at any instant of a save leaves the last good checkpoint', async () => {
  const saves = join(directory, 'saves');
  const args: SavingArgs = { run: { model: 'gpt', large: true, stage: 3 }, directory: saves };
  const world = await spawnWorld<never, SavingArgs>(new URL('./saving-rank.ts', import.meta.url), 2, { args, timeoutMs: 220_000 });
  await world.heard(0, 'step 4');

  // Stopped ranks have done what killed ones would have done, and can go on afterwards: many instants for the price of one world.
  const signal = (name: NodeJS.Signals) => {
    for (const { child } of world.ranks) child.kill(name);
  };
  const copies: string[] = [];
  for (const [i, u] of [...uniforms({ seed: 1 }, 0, INSTANTS)].entries()) {
    await sleep(2 + 60 * u);
    signal('SIGSTOP');
    const copy = join(directory, `instant-${i}`);
    cpSync(saves, copy, { recursive: true });
    copies.push(copy);
    signal('SIGCONT');
  }
  world.kill();
  await world.outcomes();

  const { engine } = await open({ model: 'gpt', large: true, stage: 0 }, new WorldOfOne());
  let midSave = 0;
  for (const path of [...copies, saves]) {
    if (readdirSync(path).some((name) => name.startsWith('.saving'))) midSave++;
    const loaded = await engine.loadCheckpoint(path);
    expect(loaded, path).toBeDefined();
    expect(await hashOfState(engine), path).toBe((loaded!.clientState as { hash: string }).hash);
  }
  expect(midSave, 'instants in the middle of a save').toBeGreaterThan(INSTANTS / 5);

  // The next run over the same directory cleans up.
  await (await engine.saveCheckpoint(saves, { tag: 'next', keepLast: 1 })).finished;
  expect(readdirSync(saves).sort()).toEqual(['latest', 'next']);
  await close(engine);
}, 240_000);
