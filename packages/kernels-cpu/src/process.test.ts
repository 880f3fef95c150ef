import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

// What can only be seen from outside: how a process that uses the addon starts and ends.
const addonPath = fileURLToPath(new URL('../build/Release/kernels_cpu.node', import.meta.url));

/** Small helpers over the bare addon, for scripts that run without TypeScript. */
const prelude = `
const n = require(${JSON.stringify(addonPath)});
function launch(op, ins, outs, attrs) {
  const words = [n.opId(op), ins.length, outs.length, attrs.length];
  for (const [handle, dtype, length] of [...ins, ...outs]) words.push(handle, 0, dtype, 1, length);
  words.push(...attrs);
  n.command.set(words);
  n.launch(words.length);
}
`;

function node(script: string, env: Record<string, string> = {}) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['-e', prelude + script], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 30_000,
  });
  return { status, signal, stdout: stdout.trim(), stderr };
}

const busy = `
const big = n.alloc(64 << 20, false);
for (let i = 0; i < 200; i++) launch('fill', [], [[big, 0, 16 << 20]], [i]);
`;

describe('a process', () => {
  it('ends by itself when work is queued that nobody waits for', () => {
    expect(node(`${busy} console.log('done')`)).toMatchObject({ status: 0, signal: null, stdout: 'done', stderr: '' });
  });

  it('stays alive while a read is pending, and only then', () => {
    const script = `${busy} n.read(big, 0, 4).then((b) => console.log(new Float32Array(b.buffer)[0]))`;
    expect(node(script)).toMatchObject({ status: 0, stdout: '199' });
  });

  it('may exit in the middle of work', () => {
    for (const when of ['process.exit(3)', 'n.read(big, 0, 4); process.exit(3)', 'setTimeout(() => process.exit(3), 5)'])
      expect(node(`${busy} ${when}`)).toMatchObject({ status: 3, signal: null, stderr: '' });
  });

  it('ends with its own error when an exception comes in the middle of work', () => {
    expect(node(`${busy} n.read(big, 0, 4); throw new Error('mine')`)).toMatchObject({ status: 1, signal: null });
  });
});

describe('worker threads', () => {
  const worker = (body: string) => `
    const { Worker } = require('node:worker_threads');
    const w = new Worker(${JSON.stringify(`${prelude} ${body}`)}, { eval: true });
    w.on('error', (e) => console.log(e.code, e.message));
    w.on('exit', () => console.log('exit'));`;

  it('get a clear error while another thread uses the addon', () => {
    const { stdout } = node(worker(''));
    expect(stdout).toMatch(/^ALREADY_LOADED the CPU backend's native part is in use by another thread of this process/);
  });

  it('may use it one after the other, and be terminated in the middle of work', () => {
    const script = `
      const { Worker } = require('node:worker_threads');
      (async () => {
        for (let i = 0; i < 3; i++) {
          const w = new Worker(${JSON.stringify(`${prelude} ${busy} n.read(big, 0, 4); require('node:worker_threads').parentPort.postMessage(n.memory().live)`)}, { eval: true });
          console.log(await new Promise((resolve, reject) => w.on('message', resolve).on('error', reject)));
          await w.terminate();
        }
      })();`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 30_000 });
    expect({ status, lines: stdout.trim().split('\n'), stderr }).toEqual({ status: 0, lines: Array(3).fill(String(64 << 20)), stderr: '' });
  });
});

describe('the environment', () => {
  it('chooses the instruction set, and plain data movement gives the same bytes on each', () => {
    const script = `
      const [a, b] = [n.alloc(1000, false), n.alloc(1000, false)];
      launch('fill', [], [[a, 2, 333]], [1 / 3]);
      launch('copy', [[a, 2, 333]], [[b, 2, 333]], []);
      console.log(n.isa(), Buffer.from(n.readSync(b, 0, 666)).toString('hex'));`;
    const results = ['baseline', 'avx2', 'avx512'].map((isa) => node(script, { DEEPSPEED_TS_CPU_ISA: isa }).stdout.split(' '));
    expect(results[0]![0]).toBe('baseline');
    expect(new Set(results.map(([, bytes]) => bytes)).size).toBe(1);
  });

  it('sets the threads: a fixed number, else the CPUs divided among the ranks of the host', () => {
    const threads = (env: Record<string, string>) => Number(node('console.log(n.threads())', { DEEPSPEED_TS_THREADS: '', ...env }).stdout);
    expect(threads({ DEEPSPEED_TS_THREADS: '3' })).toBe(3);
    expect(threads({ LOCAL_WORLD_SIZE: '100000' })).toBe(1);
    const all = threads({});
    expect(all).toBeGreaterThanOrEqual(1);
    expect(threads({ LOCAL_WORLD_SIZE: String(all) })).toBe(1);
  });

  it('limits memory, with an error that leaves the process usable', () => {
    const script = `
      const kept = n.alloc(100, false);
      n.free(n.alloc(60e6, false));
      try { n.alloc(120e6, false) } catch (e) { console.log(e.code, e.message) }
      const next = n.alloc(80e6, true);
      launch('fill', [], [[next, 0, 20e6]], [4]);
      console.log(new Float32Array(n.readSync(next, 80e6 - 4, 4).buffer)[0]);`;
    const [error, value] = node(script, { DEEPSPEED_TS_CPU_MEMORY_LIMIT: '100000000' }).stdout.split('\n');
    expect(error).toMatch(/^OUT_OF_MEMORY .* of a limit of 100000000/);
    expect(value).toBe('4');
  });
});
