import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { launch, type RankLine, start } from './index.js';
import { runs, Sandbox, until } from './test-support.js';

const WAIT = 'setInterval(() => {}, 1000);';

describe('what a rank sees', () => {
  it('gives every rank its place in the environment, and the same meeting point', async () => {
    await using box = new Sandbox();
    const script = box.script('env.js', `report(process.env.RANK, process.env);`);
    const result = await launch({ script, ranks: 3, env: { ...box.env, OWN: 'kept' } });
    expect(result).toMatchObject({ exitCode: 0, failure: null, stoppedBy: null });
    const seen = await Promise.all([0, 1, 2].map((rank) => box.reported<NodeJS.ProcessEnv>(String(rank))));
    for (const [rank, env] of seen.entries()) {
      expect(env).toMatchObject({
        RANK: String(rank),
        LOCAL_RANK: String(rank),
        WORLD_SIZE: '3',
        LOCAL_SIZE: '3',
        LOCAL_WORLD_SIZE: '3',
        CROSS_RANK: '0',
        CROSS_SIZE: '1',
        MASTER_ADDR: '127.0.0.1',
        MASTER_PORT: seen[0]!.MASTER_PORT,
        OWN: 'kept',
      });
    }
    expect(Number(seen[0]!.MASTER_PORT)).toBeGreaterThan(1023);
  });

  it('runs TypeScript, and passes arguments on whatever they hold', async () => {
    await using box = new Sandbox();
    const script = box.script('args.ts', `enum Answer { Yes = 'yes' }\nreport('args', [Answer.Yes as string, ...process.argv.slice(2)]);`);
    const args = ['two words', `it's "quoted"`, '', '$HOME', '*', 'back\\slash', 'new\nline', '--deepspeed', 'ds_config.json'];
    const { exitCode } = await launch({ script, args, env: box.env, localRankArgument: true });
    expect(exitCode).toBe(0);
    expect(await box.reported('args')).toEqual(['yes', ...args, '--local_rank=0']);
  });

  it('has no descriptor of the launcher and an empty stdin', async () => {
    await using box = new Sandbox();
    const script = box.script(
      'fds.js',
      `
      import { fstatSync, readFileSync } from 'node:fs';
      let gate = 'open';
      try { fstatSync(3).isSocket() || (gate = 'other'); } catch { gate = 'closed'; }
      report('fds', { gate, stdin: readFileSync(0, 'utf8') });`,
    );
    await launch({ script, env: box.env });
    const { gate, stdin } = await box.reported<{ gate: string; stdin: string }>('fds');
    expect(gate).not.toBe('open');
    expect(stdin).toBe('');
  });
});

describe('output', () => {
  it('delivers whole lines with rank and stream, up to the last one', async () => {
    await using box = new Sandbox();
    const script = box.script(
      'out.js',
      `
      process.stdout.write('first ' + process.env.RANK + '\\nlast, ');
      process.stdout.write('without newline');
      console.error('error');`,
    );
    const lines: RankLine[] = [];
    await launch({ script, ranks: 2, env: box.env, onLine: (line) => lines.push(line) });
    for (const rank of [0, 1]) {
      const of = (stream: string) => lines.filter((line) => line.rank === rank && line.stream === stream).map((line) => line.text);
      expect(of('stdout')).toEqual([`first ${rank}`, 'last, without newline']);
      expect(of('stderr')).toEqual(['error']);
    }
  });

  it('appends to a log file per rank', async () => {
    await using box = new Sandbox();
    const script = box.script('log.js', `console.log('hello from ' + process.env.RANK);`);
    const logDirectory = join(box.folder, 'deep', 'logs');
    for (const _ of [1, 2]) await launch({ script, ranks: 2, env: box.env, logDirectory });
    for (const rank of [0, 1]) {
      const log = readFileSync(join(logDirectory, `rank${rank}.log`), 'utf8');
      expect(log.match(new RegExp(`^--- rank ${rank} of 2`, 'gm'))).toHaveLength(2);
      expect(log.match(new RegExp(`^hello from ${rank}$`, 'gm'))).toHaveLength(2);
    }
  });
});

describe('a failing rank', () => {
  it('stops the others and gives the code', async () => {
    await using box = new Sandbox();
    const script = box.script(
      'fail.js',
      `if (process.env.RANK === '1') { console.error('about to fail'); process.exitCode = 7; } else { ${WAIT} }`,
    );
    const result = await launch({ script, ranks: 3, env: box.env });
    expect(result).toMatchObject({ exitCode: 7, failure: { rank: 1, code: 7, signal: null, stderrTail: ['about to fail'] } });
    expect(result.ranks.map(({ code, signal }) => [code, signal])).toEqual([
      [null, 'SIGTERM'],
      [7, null],
      [null, 'SIGTERM'],
    ]);
    await box.empty();
  });

  it('gives 128 + signal when killed', async () => {
    await using box = new Sandbox();
    const script = box.script('signal.js', `if (process.env.RANK === '0') process.kill(process.pid, 'SIGSEGV'); ${WAIT}`);
    const result = await launch({ script, ranks: 2, env: box.env });
    expect(result).toMatchObject({ exitCode: 139, failure: { rank: 0, code: null, signal: 'SIGSEGV' } });
  });

  it('kills after the grace period those that do not stop: deaf to SIGTERM, or stopped by SIGSTOP', async () => {
    await using box = new Sandbox();
    const script = box.script(
      'deaf.js',
      `
      process.on('SIGTERM', () => {});
      report('deaf' + process.env.RANK, true);
      if (process.env.RANK === '1') process.kill(process.pid, 'SIGSTOP');
      if (process.env.RANK === '2') { await seen('deaf0'); await seen('deaf1'); process.exit(1); }
      ${WAIT}`,
    );
    const result = await launch({ script, ranks: 3, env: box.env, graceMs: 200 });
    expect(result.exitCode).toBe(1);
    expect(result.ranks.map(({ signal }) => signal)).toEqual(['SIGKILL', 'SIGKILL', null]);
    await box.empty();
  });

  it('is the one that was killed, also when a peer gave up on it first', async () => {
    await using box = new Sandbox();
    // Rank 1 stands for a process that the kernel takes a while to kill.
    const script = box.script(
      'oom.js',
      `
      if (process.env.RANK === '1') { process.on('SIGTERM', () => process.kill(process.pid, 'SIGKILL')); report('up', true); }
      else { await seen('up'); process.exit(1); }
      ${WAIT}`,
    );
    const result = await launch({ script, ranks: 2, env: box.env });
    expect(result).toMatchObject({ exitCode: 137, failure: { rank: 1, signal: 'SIGKILL' } });
  });

  it('keeps the last twenty lines of its stderr', async () => {
    await using box = new Sandbox();
    const script = box.script('tail.js', `for (let i = 0; i < 50; i++) console.error('line ' + i); process.exitCode = 1;`);
    const { failure } = await launch({ script, env: box.env });
    expect(failure!.stderrTail).toEqual(Array.from({ length: 20 }, (_, i) => `line ${i + 30}`));
  });
});

describe('what ranks start', () => {
  it('is gone when the job ends well, in their process group or out of it', async () => {
    await using box = new Sandbox();
    const script = box.script(
      'children.js',
      `
      import { spawn } from 'node:child_process';
      const start = (detached) => spawn('sleep', ['60'], { detached, stdio: 'inherit' });
      const children = [start(false), start(true)];
      children.forEach((child) => child.unref());
      report('children', children.map((child) => child.pid));`,
    );
    const { exitCode } = await launch({ script, env: box.env });
    expect(exitCode).toBe(0);
    const children = await box.reported<number[]>('children');
    await until(() => !children.some(runs), 'the children to be gone');
    await box.empty();
  });
});

describe('a running job', () => {
  it('passes a signal on and reports who stopped it', async () => {
    await using box = new Sandbox();
    const script = box.script('graceful.js', `process.on('SIGINT', () => process.exit(0)); report('up' + process.env.RANK, true); ${WAIT}`);
    const job = await start({ script, ranks: 2, env: box.env });
    await Promise.all([box.reported('up0'), box.reported('up1')]);
    job.stop('SIGINT');
    expect(await job.finished).toMatchObject({ exitCode: 130, failure: null, stoppedBy: 'SIGINT', ranks: [{ code: 0 }, { code: 0 }] });
  });

  it('kills at once when asked a second time', async () => {
    await using box = new Sandbox();
    const script = box.script('deaf.js', `process.on('SIGTERM', () => report('deaf', true)); report('up', true); ${WAIT}`);
    const job = await start({ script, env: box.env, graceMs: 3_600_000 });
    await box.reported('up');
    job.stop();
    await box.reported('deaf');
    job.stop();
    expect(await job.finished).toMatchObject({ exitCode: 143, failure: null, stoppedBy: 'SIGTERM', ranks: [{ signal: 'SIGKILL' }] });
  });

  it('names a rank killed from outside as the failure', async () => {
    await using box = new Sandbox();
    const script = box.script('wait.js', `report('up' + process.env.RANK, process.pid); ${WAIT}`);
    const job = await start({ script, ranks: 2, env: box.env });
    expect(await Promise.all([box.reported('up0'), box.reported('up1')])).toEqual(job.pids);
    process.kill(job.pids[1]!, 'SIGKILL');
    expect(await job.finished).toMatchObject({ exitCode: 137, failure: { rank: 1, signal: 'SIGKILL' } });
    await box.empty();
  });
});

describe('a launch that cannot start', () => {
  it('throws a typed error and leaves nothing running', async () => {
    await using box = new Sandbox();
    const script = box.script('never.js', `report('ran', true);`);
    const { env } = box;
    await expect(launch({ script: 'nevr.js', cwd: box.folder, env })).rejects.toMatchObject({ code: 'SCRIPT_NOT_FOUND' });
    await expect(launch({ script, env, ranks: 0 })).rejects.toMatchObject({ code: 'BAD_ARGUMENTS' });
    await expect(launch({ script, env, logDirectory: script })).rejects.toMatchObject({ code: 'LOG_DIRECTORY' });
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as { port: number };
    await expect(launch({ script, env, masterPort: port })).rejects.toMatchObject({ code: 'PORT_IN_USE' });
    server.close();
    await box.empty();
  });
});
