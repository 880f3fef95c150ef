import { type ParseArgsConfig, parseArgs } from 'node:util';
import { UsageError } from './main.js';

type Options = NonNullable<ParseArgsConfig['options']>;
type Values<O extends Options> = ReturnType<typeof parseArgs<{ args: string[]; options: O }>>['values'];

/** Options of a command. @throws UsageError for one that is not there, or lacks its value */
export function parseOptions<const O extends Options>(command: string, args: readonly string[], options: O): Values<O> {
  try {
    return parseArgs({ args: [...args], options }).values;
  } catch (error) {
    throw new UsageError(`${(error as Error).message}. deepspeed-ts ${command} --help lists what there is`);
  }
}

/** @throws UsageError where it is missing */
export function needed(command: string, name: string, value: string | undefined): string {
  if (value === undefined) throw new UsageError(`--${name} is missing. deepspeed-ts ${command} --help tells more`);
  return value;
}

/** A number that was given as text. @throws UsageError where it is none, or below `least` */
export function numberOf(name: string, text: string | undefined, { least = 0, whole = false } = {}): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isFinite(value) && value >= least && (!whole || Number.isInteger(value))) return value;
  throw new UsageError(`--${name}: expected ${whole ? 'a whole number' : 'a number'} of at least ${least}, got '${text}'`);
}
