import { describe, expect, it } from 'vitest';
import { type CliArguments, parseArgs } from './parse-args.js';

function parse(...argv: string[]): CliArguments {
  const command = parseArgs(argv);
  if (command.kind !== 'launch') throw new Error(`got ${command.kind}`);
  return command.args;
}

describe('the command line', () => {
  it('starts one rank at a free local port by default', () => {
    expect(parse('train.ts')).toEqual({
      ranks: 1,
      masterAddr: '127.0.0.1',
      masterPort: undefined,
      localRankArgument: false,
      logDirectory: undefined,
      quiet: false,
      script: 'train.ts',
      scriptArgs: [],
    });
  });

  it('takes values after a space or an equals sign', () => {
    expect(parse('--num_gpus', '4', '--master_port=29501', 'a.ts')).toMatchObject({ ranks: 4, masterPort: 29501 });
    expect(parse('--num_accelerators=2', '--master_addr', '::1', 'a.ts')).toMatchObject({ ranks: 2, masterAddr: '::1' });
  });

  it('leaves every word after the script to the script', () => {
    const { script, scriptArgs, ranks } = parse(
      '--num_gpus',
      '2',
      'train.ts',
      '--num_gpus',
      '7',
      '--deepspeed',
      'ds_config.json',
      '-q',
      '--',
      'x',
    );
    expect({ script, ranks }).toEqual({ script: 'train.ts', ranks: 2 });
    expect(scriptArgs).toEqual(['--num_gpus', '7', '--deepspeed', 'ds_config.json', '-q', '--', 'x']);
  });

  it('ends its flags at --', () => {
    expect(parse('--quiet', '--', '--odd-name.js', 'x')).toMatchObject({ quiet: true, script: '--odd-name.js', scriptArgs: ['x'] });
  });

  it('reads port 0 as any free port', () => {
    expect(parse('--master_port', '0', 'a.ts').masterPort).toBeUndefined();
  });

  it('appends --local_rank only when asked', () => {
    expect(parse('--local_rank', 'a.ts').localRankArgument).toBe(true);
    expect(parse('--no_local_rank', 'a.ts').localRankArgument).toBe(false);
  });

  it('knows --help and --version', () => {
    expect(parseArgs(['--help'])).toEqual({ kind: 'help' });
    expect(parseArgs(['--num_gpus', '2', '-h'])).toEqual({ kind: 'help' });
    expect(parseArgs(['--version'])).toEqual({ kind: 'version' });
  });

  it.each([
    [['--num_gpu', '2', 'a.ts'], 'Unknown launcher flag --num_gpu. Did you mean --num_gpus?'],
    [['--num-gpus', '2', 'a.ts'], 'Did you mean --num_gpus?'],
    [['--masterport=1', 'a.ts'], 'Did you mean --master_port?'],
    [['--xyzzy', 'a.ts'], 'Unknown launcher flag --xyzzy. See deepspeed --help.'],
    [['--num_gpus', '0', 'a.ts'], '--num_gpus: expected an integer >= 1, got "0".'],
    [['--num_gpus', 'two', 'a.ts'], '--num_gpus: expected an integer >= 1, got "two".'],
    [['--num_gpus', '1.5', 'a.ts'], '--num_gpus: expected an integer >= 1, got "1.5".'],
    [['--num_gpus=-1', 'a.ts'], '--num_gpus: expected an integer >= 1, got "-1".'],
    [['--master_port', '65536', 'a.ts'], '--master_port: expected an integer from 0 to 65535, got "65536".'],
    [['--num_gpus'], '--num_gpus needs a value.'],
    [['--quiet=yes', 'a.ts'], '--quiet takes no value, got "yes".'],
    [
      ['--hostfile', 'hosts', 'a.ts'],
      '--hostfile is a flag of DeepSpeed that this launcher refuses. This launcher starts the ranks of one machine.',
    ],
    [['--module', 'a'], 'There is no Python here'],
    [[], 'No script given'],
    [['--quiet'], 'No script given'],
  ])('refuses %j with the way out', (argv, message) => {
    expect(() => parseArgs(argv)).toThrow(message);
  });
});
