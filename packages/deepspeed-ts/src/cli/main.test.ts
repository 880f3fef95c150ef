import { DeepSpeedError } from '@deepspeed-ts/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Command, commands } from './commands.js';
import { main, UsageError } from './main.js';

let out: string;
let err: string;
beforeEach(() => {
  out = '';
  err = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += text;
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    err += text;
    return true;
  });
});
afterEach(() => vi.restoreAllMocks());

const command = (run: (args: readonly string[]) => Promise<number>): Command => ({
  summary: 'Does something',
  load: async () => ({ usage: '\nUsage: deepspeed-ts something\n', run }),
});
const table = {
  echo: command(async (args) => {
    process.stdout.write(args.join(' '));
    return 7;
  }),
  refuse: command(async () => {
    throw new DeepSpeedError('ERR_TEST', 'there is no such thing');
  }),
  misuse: command(async () => {
    throw new UsageError('expected a file');
  }),
  broken: command(async () => {
    throw new TypeError('a bug');
  }),
};
const run = (...argv: string[]) => main(argv, { version: '1.2.3', table });

describe('the deepspeed-ts command', () => {
  it('runs a subcommand with its arguments, and ends with its code', async () => {
    expect(await run('echo', 'a', '--b')).toBe(7);
    expect(out).toBe('a --b');
  });

  it('lists subcommands, and explains one', async () => {
    expect(await run('--help')).toBe(0);
    expect(out).toMatch(/^Usage: deepspeed-ts <command>[\s\S]*\n {2}broken {2}Does something\n {2}echo {4}Does something\n/);
    out = '';
    expect(await run('echo', '--help')).toBe(0);
    expect(out).toBe('Usage: deepspeed-ts something\n');
    out = '';
    expect(await run('--version')).toBe(0);
    expect(out).toBe('1.2.3\n');
  });

  it('prints errors without a stack, and ends with 1, or with 2 where the arguments were wrong', async () => {
    expect(await run('refuse')).toBe(1);
    expect(err).toBe('deepspeed-ts refuse: there is no such thing\n');
    expect(await run('misuse')).toBe(2);
    expect(err).toContain('deepspeed-ts misuse: expected a file\n');
    await expect(run('broken')).rejects.toThrow(TypeError);
  });

  it('names the nearest command where there is none of a name, and lists all where none is given', async () => {
    expect(await run('ehco')).toBe(2);
    expect(err).toMatch(/^deepspeed-ts: there is no command 'ehco'; did you mean echo\?\n\nUsage/);
    expect(await run('constructor')).toBe(2);
    expect(await run()).toBe(2);
  });

  it('has convert, which asks for two paths', async () => {
    expect(await main(['convert', 'only'], { table: commands })).toBe(2);
    expect(err).toMatch(/expected a checkpoint and an output, got 1 arguments\n\nUsage: deepspeed-ts convert <checkpoint> <output>/);
    expect(await main(['convert', 'a', 'b', '--tga', 'x'], { table: commands })).toBe(2);
    expect(err).toMatch(/Unknown option '--tga'/);
  });
});
