import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeDeepSpeedCheckpoint } from './writer.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'convert-cli-'));
  writeDeepSpeedCheckpoint(join(folder, 'deepspeed'), { stage: 3, world: 2, groups: [[{ name: 'weight', shape: [5, 3] }]] });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const cli = fileURLToPath(new URL('../../../deepspeed-ts/src/cli.ts', import.meta.url));

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--conditions=@deepspeed-ts/source', '--import', 'tsx', cli, ...args], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    encoding: 'utf8',
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  return { status, stdout, stderr };
}

describe('deepspeed-ts convert', () => {
  it('tells what it reads on stderr, and what it made on stdout', () => {
    const { status, stdout, stderr } = run('convert', join(folder, 'deepspeed'), join(folder, 'ours'));
    expect(stderr).toContain('reading zero_pp_rank_1_mp_rank_00_optim_states.pt (3 of 3)\n');
    expect(stdout).toContain(`${join(folder, 'ours', 'global_step9')}: global_step9 of ZeRO stage 3 on 2 ranks, after 9 steps\n`);
    expect(stdout).toContain('1 parameters with 15 elements; optimizer states: exp_avg, exp_avg_sq');
    expect(status).toBe(0);
  });

  it('gives JSON to programs', () => {
    const { status, stdout, stderr } = run('convert', join(folder, 'deepspeed'), join(folder, 'json'), '--json', '--quiet');
    expect(JSON.parse(stdout)).toMatchObject({
      path: join(folder, 'json', 'global_step9'),
      stage: 3,
      worldSize: 2,
      parameters: 1,
      elements: 15,
    });
    expect([status, stderr]).toEqual([0, '']);
  });

  it('says what is wrong without a stack, and ends with 1', () => {
    const missing = run('convert', join(folder, 'nothing'), join(folder, 'no'));
    expect(missing).toEqual({
      status: 1,
      stdout: '',
      stderr: `deepspeed-ts convert: ${join(folder, 'nothing')}: there is no such directory\n`,
    });
    expect(existsSync(join(folder, 'no'))).toBe(false);
  });
});
