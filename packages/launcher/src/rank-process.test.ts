import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { tsxFlags } from './rank-command.js';
import { RankProcess } from './rank-process.js';
import { Sandbox } from './test-support.js';

const options = { rank: 0, inherit: { stdin: false, stdout: false, stderr: false }, onLine: () => {}, logFile: undefined };

it('lets the script run once the gate opens, under the process id that the reaper was told', async () => {
  await using box = new Sandbox();
  const script = box.script('opened.js', `report('opened', { pid: process.pid, at: Date.now() });`);
  const rank = new RankProcess({ ...options, args: [script], cwd: box.folder, env: box.env });
  const pid = await rank.spawned;
  const openedAt = Date.now();
  rank.open();
  expect(await rank.exited).toEqual({ rank: 0, pid, code: 0, signal: null });
  const report = await box.reported<{ pid: number; at: number }>('opened');
  expect(report.pid).toBe(pid);
  expect(report.at).toBeGreaterThanOrEqual(openedAt);
});

it('never runs its script when its maker dies before opening the gate, with no reaper to help', async () => {
  await using box = new Sandbox();
  box.script('never.js', `report('never', true); setInterval(() => {}, 1000);`);
  const maker = box.script(
    'maker.ts',
    `import { RankProcess } from ${JSON.stringify(new URL('./rank-process.ts', import.meta.url).href)};
     const rank = new RankProcess({ ...${JSON.stringify(options)}, onLine: () => {}, args: ['never.js'], cwd: process.cwd(), env: process.env });
     rank.spawned.then(() => process.kill(process.pid, 'SIGKILL'));`,
  );
  const child = spawn(process.execPath, [...tsxFlags(), maker], { cwd: box.folder, env: box.env, stdio: 'inherit' });
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);
  await box.empty();
});
