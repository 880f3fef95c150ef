import { DeepSpeedError, nearest } from '@deepspeed-ts/core';
import type { Command } from './commands.js';

/** As command line tools have it: the arguments were wrong, and nothing was done. */
export const EXIT_USAGE = 2;

/** The arguments of a command can't be meant. Printed without a stack; ends with {@link EXIT_USAGE}. */
export class UsageError extends DeepSpeedError {
  constructor(message: string) {
    super('ERR_USAGE', message);
  }
}

export interface MainOptions {
  readonly version?: string;
  /** By name. */
  readonly table: Readonly<Record<string, Command>>;
}

/** The `deepspeed-ts` command. Returns its exit code. */
export async function main(argv: readonly string[], { version = '', table }: MainOptions): Promise<number> {
  const [name, ...args] = argv;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(usage(table));
    return name === undefined ? EXIT_USAGE : 0;
  }
  if (name === '--version') {
    process.stdout.write(`${version}\n`);
    return 0;
  }
  if (!Object.hasOwn(table, name)) {
    const close = nearest(name, Object.keys(table));
    const hint = close.length > 0 ? `; did you mean ${close.join(' or ')}?` : '';
    process.stderr.write(`deepspeed-ts: there is no command '${name}'${hint}\n\n${usage(table)}`);
    return EXIT_USAGE;
  }
  const command = await table[name]!.load();
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(`${command.usage.trim()}\n`);
    return 0;
  }
  try {
    return await command.run(args);
  } catch (error) {
    // A program's own mistake keeps its stack.
    if (!(error instanceof DeepSpeedError)) throw error;
    process.stderr.write(`deepspeed-ts ${name}: ${error.message}\n`);
    return error instanceof UsageError ? EXIT_USAGE : 1;
  }
}

function usage(table: Readonly<Record<string, Command>>): string {
  const names = Object.keys(table).sort();
  const width = Math.max(0, ...names.map((name) => name.length));
  const list = names.map((name) => `  ${name.padEnd(width)}  ${table[name]!.summary}`);
  return `Usage: deepspeed-ts <command> [arguments]\n\nCommands:\n${list.join('\n')}\n\ndeepspeed-ts <command> --help tells more.\n`;
}
