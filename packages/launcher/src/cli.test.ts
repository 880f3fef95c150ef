import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { runs, Sandbox, until } from './test-support.js';

const WAIT = 'setInterval(() => {}, 1000);';

/** Ranks as hard to stop as they come: a loop that never lets JavaScript handle anything, and children inside and outside the group. */
const STUBBORN = `
  import { spawn } from 'node:child_process';
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});
  const start = (detached) => spawn(process.execPath, ['-e', 'process.on("SIGTERM", () => {}); setInterval(() => {}, 1000)'], { detached, stdio: 'ignore' }).pid;
  const children = process.env.RANK === '0' ? [start(false), start(true)] : [];
  report('pids' + process.env.RANK, [process.pid, ...children]);
  if (process.env.RANK === '1') for (;;);
  setInterval(() => {}, 1000);
`;

async function stubbornPids(box: Sandbox): Promise<number[]> {
  return (await Promise.all([box.reported<number[]>('pids0'), box.reported<number[]>('pids1')])).flat();
}

describe('output of the command', () => {
  it("keeps stdout rank 0's alone, so that JSON lines stay JSON, and prefixes the rest on stderr", async () => {
    await using box = new Sandbox();
    box.script(
      'train.ts',
      `
      console.log(JSON.stringify({ step: 1, rank: Number(process.env.RANK) }));
      console.error('warning');
      console.log(JSON.stringify({ step: 2, text: 'Zeile mit ü' }));`,
    );
    const { code, stdout, stderr } = await box.cli('--num_gpus', '2', 'train.ts').finished;
    expect(code).toBe(0);
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([
      { step: 1, rank: 0 },
      { step: 2, text: 'Zeile mit ü' },
    ]);
    const lines = stderr.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^deepspeed: 2 ranks of train\.ts, meeting at 127\.0\.0\.1:\d+$/);
    expect(lines.slice(1).sort()).toEqual([
      '[rank 0] warning',
      '[rank 1] warning',
      '[rank 1] {"step":1,"rank":1}',
      '[rank 1] {"step":2,"text":"Zeile mit ü"}',
    ]);
  });

  it('is the output of the script alone for one rank', async () => {
    await using box = new Sandbox();
    box.script('one.js', `console.log('out'); console.error('err');`);
    expect(await box.cli('one.js').finished).toMatchObject({ code: 0, stdout: 'out\n', stderr: 'err\n' });
  });

  it('still goes to stdout when it is logged as well', async () => {
    await using box = new Sandbox();
    box.script('one.js', `console.log('rank', process.env.RANK);`);
    const { stdout, stderr } = await box.cli('-q', '--num_gpus', '2', '--enable_each_rank_log', 'logs', 'one.js').finished;
    expect({ stdout, stderr }).toEqual({ stdout: 'rank 0\n', stderr: '[rank 1] rank 1\n' });
    expect(readFileSync(`${box.folder}/logs/rank1.log`, 'utf8')).toMatch(/\nrank 1\n$/);
  });
});

describe('a rank that fails', () => {
  it('stops the job within five seconds, is named with its last lines, and gives its exit code', async () => {
    await using box = new Sandbox();
    box.script(
      'fail.mts',
      `
      process.on('SIGTERM', () => {});
      if (process.env.RANK === '0') report('deaf', true);
      else { await seen('deaf'); report('failedAt', Date.now()); console.error('the reason'); process.exit(3); }
      ${WAIT}`,
    );
    const { code, stderr } = await box.cli('--num_gpus', '2', 'fail.mts').finished;
    expect(Date.now() - (await box.reported<number>('failedAt'))).toBeLessThan(5000);
    expect(code).toBe(3);
    expect(stderr).toMatch(/deepspeed: rank 1 \(pid \d+\) failed first, [\d.]+ s after the start: exit code 3\.\n/);
    expect(stderr).toMatch(/Its last lines on stderr:\n {2}\| the reason\nThe others: rank 0 stopped \(SIGKILL\)\.\n$/);
    await box.empty();
  });

  it('is explained when a signal killed it', async () => {
    await using box = new Sandbox();
    box.script('oom.js', `if (process.env.RANK === '1') process.kill(process.pid, 'SIGKILL'); ${WAIT}`);
    const { code, stderr } = await box.cli('--num_gpus=2', 'oom.js').finished;
    expect(code).toBe(137);
    expect(stderr).toMatch(/rank 1 \(pid \d+\) failed first, .*: killed by SIGKILL: most likely out of memory/);
  });
});

describe('stopping the command', () => {
  it('passes SIGINT and SIGTERM on to every rank and exits with 128 + signal', async () => {
    await using box = new Sandbox();
    const stopBy = async (signal: 'SIGINT' | 'SIGTERM') => {
      box.script(
        `${signal}.js`,
        `
        process.on('${signal}', () => { report('${signal}-heard' + process.env.RANK, true); process.exit(0); });
        report('${signal}-up' + process.env.RANK, true); ${WAIT}`,
      );
      const { child, finished } = box.cli('--num_gpus', '2', `${signal}.js`);
      await Promise.all([box.reported(`${signal}-up0`), box.reported(`${signal}-up1`)]);
      child.kill(signal);
      const { code, stderr } = await finished;
      await Promise.all([box.reported(`${signal}-heard0`), box.reported(`${signal}-heard1`)]);
      return [code, stderr.trimEnd().split('\n').at(-1)];
    };
    expect(await Promise.all([stopBy('SIGINT'), stopBy('SIGTERM')])).toEqual([
      [130, 'deepspeed: stopped by SIGINT.'],
      [143, 'deepspeed: stopped by SIGTERM.'],
    ]);
    await box.empty();
  });

  it('goes on after SIGHUP when it has no terminal, as under nohup', async () => {
    await using box = new Sandbox();
    box.script('brief.js', `report('up', true); process.on('SIGUSR2', () => process.exit(0)); report('pid', process.pid); ${WAIT}`);
    const { child, finished } = box.cli('brief.js');
    const rank = await box.reported<number>('pid');
    child.kill('SIGHUP');
    process.kill(rank, 'SIGUSR2');
    expect((await finished).code).toBe(0);
  });

  it.skipIf(spawnSync('script', ['--version']).error !== undefined || process.platform !== 'linux')(
    'stops when the terminal it was started from goes away',
    async () => {
      await using box = new Sandbox();
      box.script('wait.js', `report('up' + process.env.RANK, process.stdout.isTTY === true); ${WAIT}`);
      const [node, ...args] = box.command('--num_gpus', '2', 'wait.js');
      const terminal = spawn('script', ['-qec', [node, ...args].join(' '), '/dev/null'], { cwd: box.folder, env: box.env });
      expect(await Promise.all([box.reported('up0'), box.reported('up1')])).toEqual([true, false]);
      terminal.kill('SIGKILL');
      await box.empty();
    },
  );

  it('ends even ranks that do not listen, with all their children', async () => {
    await using box = new Sandbox();
    box.script('stubborn.js', STUBBORN);
    const { child, finished } = box.cli('--num_gpus', '2', 'stubborn.js');
    const pids = await stubbornPids(box);
    child.kill('SIGINT');
    expect((await finished).code).toBe(130);
    expect(pids.filter(runs)).toEqual([]);
    await box.empty();
  });
});

describe('killing the command with SIGKILL', () => {
  it('leaves nothing behind: no rank in a busy loop, no grandchild in or out of its group', async () => {
    await using box = new Sandbox();
    box.script('stubborn.js', STUBBORN);
    const { child, finished } = box.cli('--num_gpus', '2', 'stubborn.js');
    const pids = await stubbornPids(box);
    expect(pids).toHaveLength(4);
    expect(pids.every(runs)).toBe(true);
    child.kill('SIGKILL');
    expect((await finished).signal).toBe('SIGKILL');
    await until(() => !pids.some(runs), 'ranks and their children to be gone');
    await box.empty();
  });

  it('leaves nothing behind at whatever moment of the start it comes', async () => {
    await using box = new Sandbox();
    box.script('wait.js', `report('up' + process.env.RANK, true); ${WAIT}`);
    const began = Date.now();
    const { child, finished } = box.cli('--num_gpus', '2', 'wait.js');
    await Promise.all([box.reported('up0'), box.reported('up1')]);
    const startMs = Date.now() - began;
    child.kill('SIGKILL');
    await finished;
    for (let i = 1; i <= 5; i++) {
      const attempt = box.cli('--num_gpus', '2', 'wait.js');
      await sleep((startMs * (4 + i)) / 9);
      attempt.child.kill('SIGKILL');
      await attempt.finished;
    }
    await box.empty();
  });

  it('kills the ranks when it is the reaper that is killed', async () => {
    await using box = new Sandbox();
    box.script('wait.js', `report('up' + process.env.RANK, process.ppid); ${WAIT}`);
    const { finished } = box.cli('--num_gpus', '2', 'wait.js');
    const launcher = await box.reported<number>('up0');
    await box.reported('up1');
    const children = readFileSync(`/proc/${launcher}/task/${launcher}/children`, 'utf8').trim().split(' ').map(Number);
    const reaper = children.find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('reaper.ts'))!;
    process.kill(reaper, 'SIGKILL');
    expect(await finished).toMatchObject({ code: 1, stderr: expect.stringContaining('The process that guards the ranks was killed') });
    await box.empty();
  });
});

describe('a command that cannot start', () => {
  it('says why and exits with 2, before any rank', async () => {
    await using box = new Sandbox();
    box.script('train.ts', `report('ran', true);`);
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as { port: number };
    const [flag, missing, busy] = await Promise.all([
      box.cli('--num_gpu', '2', 'train.ts').finished,
      box.cli('trian.ts').finished,
      box.cli('--master_port', String(port), 'train.ts').finished,
    ]);
    server.close();
    expect(flag).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('Did you mean --num_gpus?') });
    expect(missing).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('Did you mean train.ts?') });
    expect(busy).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(`Port ${port} on 127.0.0.1 is in use`) });
  });

  it('prints help and version on stdout', async () => {
    await using box = new Sandbox();
    const [help, version] = await Promise.all([box.cli('--help').finished, box.cli('--version').finished]);
    expect(help).toMatchObject({ code: 0, stdout: expect.stringContaining('Usage: deepspeed'), stderr: '' });
    expect(version).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+/), stderr: '' });
  });
});
