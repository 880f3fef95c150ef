import { LaunchError } from './errors.js';
import { nearest } from './nearest.js';

/** The command line, understood. Everything after the script belongs to the script. */
export interface CliArguments {
  ranks: number;
  masterAddr: string;
  /** undefined: any free port. */
  masterPort: number | undefined;
  localRankArgument: boolean;
  logDirectory: string | undefined;
  quiet: boolean;
  script: string;
  scriptArgs: string[];
}

export type ParsedCommand = { kind: 'help' } | { kind: 'version' } | { kind: 'launch'; args: CliArguments };

export const USAGE = `Usage: deepspeed [launcher flags] script.ts|script.js [script arguments]

Starts the ranks of a training script on this machine and stops them together.

  --num_gpus N, --num_accelerators N   ranks to start (default 1)
  --master_addr ADDRESS                where the ranks meet (default 127.0.0.1)
  --master_port PORT                   their port (default: a free one; 0 means the same)
  --local_rank                         append --local_rank=N to the script's arguments
  --enable_each_rank_log DIR           also append each rank's output to DIR/rank<N>.log
  -q, --quiet                          no messages from the launcher, except failures
  -h, --help                           this text
  --version                            the version

stdout is rank 0's stdout, byte for byte. With several ranks, everything else goes to stderr
as "[rank N] line". Launcher flags come before the script; flags after it are the script's.
`;

const MULTI_NODE =
  'This launcher starts the ranks of one machine. For several machines start the script itself under srun, mpirun or a job controller ' +
  'that sets RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.';
const NO_PYTHON = 'There is no Python here: give the path of a .ts or .js script.';
const NOT_YET = 'It is not supported.';

/** DeepSpeed's flags that are refused by name, with the reason. */
const REFUSED: Record<string, string> = {
  '-H': MULTI_NODE,
  '--hostfile': MULTI_NODE,
  '-i': MULTI_NODE,
  '--include': MULTI_NODE,
  '-e': MULTI_NODE,
  '--exclude': MULTI_NODE,
  '--num_nodes': MULTI_NODE,
  '--node_rank': MULTI_NODE,
  '--launcher': MULTI_NODE,
  '--launcher_args': MULTI_NODE,
  '--force_multi': MULTI_NODE,
  '--no_ssh': MULTI_NODE,
  '--no_ssh_check': MULTI_NODE,
  '--ssh_port': MULTI_NODE,
  '--module': NO_PYTHON,
  '--no_python': NO_PYTHON,
  '--venv_script': NO_PYTHON,
  '--save_pid': NOT_YET,
  '--autotuning': NOT_YET,
  '--elastic_training': NOT_YET,
  '--min_elastic_nodes': NOT_YET,
  '--max_elastic_nodes': NOT_YET,
  '--bind_cores_to_rank': NOT_YET,
  '--bind_core_list': NOT_YET,
  '--log_level': 'Use --quiet.',
};

const SWITCHES = new Set(['--local_rank', '--no_local_rank', '--quiet', '-q', '--help', '-h', '--version']);
const WITH_VALUE = new Set(['--num_gpus', '--num_accelerators', '--master_addr', '--master_port', '--enable_each_rank_log']);

function integer(flag: string, text: string, minimum: number, maximum: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= minimum && value <= maximum) return value;
  const expected = maximum === Number.MAX_SAFE_INTEGER ? `an integer >= ${minimum}` : `an integer from ${minimum} to ${maximum}`;
  throw new LaunchError('BAD_ARGUMENTS', `${flag}: expected ${expected}, got ${JSON.stringify(text)}.`);
}

function unknownFlag(flag: string): LaunchError {
  const reason = REFUSED[flag];
  if (reason !== undefined) return new LaunchError('BAD_ARGUMENTS', `${flag} is a flag of DeepSpeed that this launcher refuses. ${reason}`);
  const close = nearest(
    flag,
    [...SWITCHES, ...WITH_VALUE].filter((name) => name.startsWith('--')),
  );
  const hint = close === null ? 'See deepspeed --help.' : `Did you mean ${close}?`;
  return new LaunchError('BAD_ARGUMENTS', `Unknown launcher flag ${flag}. ${hint} (Flags of the script go after the script.)`);
}

/**
 * Reads the launcher's command line (without `node` and the command itself).
 * @throws LaunchError BAD_ARGUMENTS for an unknown flag, a missing or bad value, or no script.
 */
export function parseArgs(argv: readonly string[]): ParsedCommand {
  const args: CliArguments = {
    ranks: 1,
    masterAddr: '127.0.0.1',
    masterPort: undefined,
    localRankArgument: false,
    logDirectory: undefined,
    quiet: false,
    script: '',
    scriptArgs: [],
  };
  let at = 0;
  for (; at < argv.length && argv[at]!.startsWith('-') && argv[at] !== '--'; at++) {
    const word = argv[at]!;
    const equals = word.startsWith('--') ? word.indexOf('=') : -1;
    const flag = equals === -1 ? word : word.slice(0, equals);

    if (SWITCHES.has(flag)) {
      if (equals !== -1) throw new LaunchError('BAD_ARGUMENTS', `${flag} takes no value, got ${JSON.stringify(word.slice(equals + 1))}.`);
      if (flag === '--help' || flag === '-h') return { kind: 'help' };
      if (flag === '--version') return { kind: 'version' };
      if (flag === '--quiet' || flag === '-q') args.quiet = true;
      // DeepSpeed's --no_local_rank asks for what is the default here.
      else args.localRankArgument = flag === '--local_rank';
      continue;
    }
    if (!WITH_VALUE.has(flag)) throw unknownFlag(flag);

    const value = equals === -1 ? argv[++at] : word.slice(equals + 1);
    if (value === undefined || value === '') throw new LaunchError('BAD_ARGUMENTS', `${flag} needs a value. See deepspeed --help.`);
    if (flag === '--master_addr') args.masterAddr = value;
    else if (flag === '--master_port') args.masterPort = integer(flag, value, 0, 65535) || undefined;
    else if (flag === '--enable_each_rank_log') args.logDirectory = value;
    else args.ranks = integer(flag, value, 1, Number.MAX_SAFE_INTEGER);
  }
  if (argv[at] === '--') at++;
  const script = argv[at];
  if (script === undefined) throw new LaunchError('BAD_ARGUMENTS', `No script given: expected the path of a .ts or .js file.\n\n${USAGE}`);
  return { kind: 'launch', args: { ...args, script, scriptArgs: argv.slice(at + 1) } };
}
