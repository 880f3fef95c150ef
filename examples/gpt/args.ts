import { DeepSpeedError, nearest } from 'deepspeed-ts';

/** A command line that can't be used; `problems` has one entry for each. */
export class ArgumentError extends DeepSpeedError {
  constructor(readonly problems: readonly string[]) {
    super('ERR_ARGUMENTS', problems.join('\n'));
  }
}

interface Flag<T> {
  /** What stands for the value in the usage text; empty for a switch. */
  readonly placeholder: string;
  readonly expected: string;
  /** `undefined` when the text is no such value. */
  readonly read: (text: string) => T | undefined;
  readonly fallback: T | undefined;
  readonly help: string;
}

type ValueOf<F> = F extends Flag<infer T> ? T : never;

const numberIn =
  (expected: string, holds: (value: number) => boolean) => (placeholder: string, fallback: number | undefined, help: string) =>
    ({
      placeholder,
      expected,
      fallback,
      help,
      read: (text) => (text.trim() !== '' && holds(Number(text)) ? Number(text) : undefined),
    }) satisfies Flag<number>;

const count = numberIn('an integer >= 1', (value) => Number.isSafeInteger(value) && value >= 1);
const countOrNone = numberIn('an integer >= 0', (value) => Number.isSafeInteger(value) && value >= 0);
const rate = numberIn('a number >= 0', (value) => Number.isFinite(value) && value >= 0);
const share = numberIn('a number >= 0 and < 1', (value) => value >= 0 && value < 1);
const positiveShare = numberIn('a number > 0 and < 1', (value) => value > 0 && value < 1);

const path = (placeholder: string, help: string): Flag<string> => ({
  placeholder,
  expected: 'a path',
  fallback: undefined,
  help,
  read: (text) => text || undefined,
});
const choice = <const T extends string>(choices: readonly T[], fallback: T, help: string): Flag<T> => ({
  placeholder: choices.join('|'),
  expected: choices.map((one) => `"${one}"`).join(' or '),
  fallback,
  help,
  read: (text) => choices.find((one) => one === text),
});

const FLAGS = {
  data: path('FILE', 'text to learn (required)'),
  tokens: choice(['chars', 'bytes'], 'chars', 'what a token is'),
  'val-fraction': positiveShare('F', 0.1, 'last part of the text, kept for validation'),
  layers: count('N', 4, 'transformer blocks'),
  heads: count('N', 4, 'attention heads of a block'),
  dim: count('N', 128, 'width; a multiple of the heads'),
  context: count('N', 64, 'tokens that the model sees at once'),
  dropout: share('P', 0, 'share of activations dropped in training'),
  batch: count('N', 12, 'windows of a micro-batch on each rank'),
  steps: count('N', 2000, 'optimizer steps'),
  lr: rate('X', 1e-3, 'highest learning rate'),
  'min-lr': rate('X', undefined, 'learning rate at the end of the cosine (default: lr / 10)'),
  warmup: countOrNone('N', undefined, 'steps of linear warm-up (default: a twentieth of the steps)'),
  beta2: share('X', 0.99, "decay of Adam's second moment"),
  'weight-decay': rate('X', 0.1, 'decay of matrices; biases and norms have none'),
  seed: countOrNone('N', 0, 'of weights, windows, dropout and sample'),
  'eval-interval': count('N', 250, 'steps between validations; the last step has one too'),
  deepspeed: path('CONFIG', 'DeepSpeed config (JSON or HJSON); where it and a flag both speak, they must agree'),
  out: path('DIR', 'write the trained model here'),
  sample: countOrNone('N', 400, 'characters to generate at the end'),
} satisfies Record<string, Flag<unknown>>;

const SWITCHES = { json: 'print one JSON line per step instead of progress', help: 'this text' };

export type FlagName = keyof typeof FLAGS;
type Optional = 'deepspeed' | 'out';
type Values = { readonly [K in Exclude<FlagName, Optional>]: ValueOf<(typeof FLAGS)[K]> } & {
  readonly [K in Optional]: string | undefined;
};

/** The command line, with every default filled in. */
export interface Arguments extends Values {
  readonly json: boolean;
  /** Flags that the user wrote; the others have their defaults. */
  readonly given: ReadonlySet<FlagName>;
}

/**
 * Reads the command line (without `node` and the script). Flags are `--name value` or `--name=value`.
 *
 * @throws ArgumentError listing every problem.
 */
export function parseArguments(argv: readonly string[]): Arguments {
  const problems: string[] = [];
  const values = new Map<string, unknown>();
  const names = [...Object.keys(FLAGS), ...Object.keys(SWITCHES)];
  let json = false;
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at]!;
    const equals = word.indexOf('=');
    const name = word.slice(2, equals < 0 ? undefined : equals);
    // The launcher's way to tell the rank, which the environment does too.
    if (name === 'local_rank' && equals > 0) continue;
    if (!word.startsWith('--')) problems.push(`${word}: expected a flag, such as --data FILE`);
    else if (name === 'json' && equals < 0) json = true;
    else if (!Object.hasOwn(FLAGS, name)) {
      problems.push(name === 'json' ? '--json takes no value' : `--${name}: there is no such flag${hint(name, names)}`);
      // Its value, most likely.
      if (equals < 0 && argv[at + 1]?.startsWith('--') === false) at++;
    } else {
      const flag: Flag<unknown> = FLAGS[name as FlagName];
      const text = equals < 0 ? argv[++at] : word.slice(equals + 1);
      const value = text === undefined ? undefined : flag.read(text);
      if (values.has(name)) problems.push(`--${name} is given twice`);
      if (value === undefined)
        problems.push(`--${name}: expected ${flag.expected}, got ${text === undefined ? 'nothing' : JSON.stringify(text)}`);
      values.set(name, value ?? flag.fallback);
    }
  }
  const given = new Set([...values.keys()] as FlagName[]);
  for (const [name, { fallback }] of Object.entries(FLAGS)) if (!values.has(name)) values.set(name, fallback);
  const all = Object.fromEntries(values) as unknown as Values;
  const args: Arguments = {
    ...all,
    'min-lr': all['min-lr'] ?? all.lr / 10,
    warmup: all.warmup ?? Math.round(all.steps / 20),
    json,
    given,
  };
  if (!given.has('data')) problems.push('--data: missing; expected the path of a text file');
  if (args.dim % args.heads !== 0) problems.push(`--dim: expected a multiple of the heads, ${args.heads}, got ${args.dim}`);
  if (args['min-lr'] > args.lr) problems.push(`--min-lr: expected at most the learning rate, ${args.lr}, got ${args['min-lr']}`);
  if (problems.length > 0) throw new ArgumentError(problems);
  return args;
}

function hint(name: string, names: readonly string[]): string {
  const [first] = nearest(name, names);
  return first === undefined ? '; --help lists them' : `; did you mean --${first}?`;
}

/** The text of --help. */
export function usage(): string {
  const rows = Object.entries(FLAGS).map(([name, { placeholder, fallback, help }]) => {
    const shown = fallback === undefined ? '' : ` (default ${fallback})`;
    return [`--${name} ${placeholder}`, `${help}${shown}`] as const;
  });
  const all = [...rows, ...Object.entries(SWITCHES).map(([name, help]) => [`--${name}`, help] as const)];
  const width = Math.max(...all.map(([flag]) => flag.length));
  return `Usage: deepspeed [--num_gpus N] train.ts --data FILE [flags]\n\n${all.map(([flag, help]) => `  ${flag.padEnd(width)}  ${help}`).join('\n')}\n`;
}
