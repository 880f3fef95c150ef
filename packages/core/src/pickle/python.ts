import { exact } from './literals.js';
import type { Construct, Constructors } from './machine.js';
import { numpyConstructors } from './numpy.js';
import { describePickled, isTuple, PickleGlobal, PickleObject, type PickleValue } from './values.js';

/** `OrderedDict()`, or of pairs, or of a dictionary. */
const dictionary: Construct = ([from], fail) => {
  const map = new Map<PickleValue, PickleValue>();
  if (from === undefined || from === null) return map;
  if (from instanceof Map) return new Map(from);
  if (!Array.isArray(from)) return fail(`expected pairs, got ${describePickled(from)}`);
  for (const pair of from as readonly PickleValue[]) {
    if (!Array.isArray(pair) || pair.length !== 2) return fail(`expected a pair, got ${describePickled(pair)}`);
    map.set(pair[0], pair[1]);
  }
  return map;
};

const set: Construct = ([from], fail) => {
  if (from === undefined) return new Set();
  if (!Array.isArray(from) && !(from instanceof Set)) return fail(`expected elements, got ${describePickled(from)}`);
  return new Set(from as Iterable<PickleValue>);
};

/** How protocols below 3 write bytes: as text of which each character is one. */
const encode: Construct = ([text, encoding = 'latin1'], fail) => {
  if (typeof text !== 'string' || !/^latin-?1$/.test(String(encoding)))
    return fail(`expected text in latin1, got ${describePickled(text)} in ${describePickled(encoding)}`);
  return new Uint8Array(Buffer.from(text, 'latin1'));
};

const byteString: Construct = ([from], fail) => {
  if (from === undefined) return new Uint8Array();
  if (from instanceof Uint8Array) return from.slice();
  if (Array.isArray(from) && from.every((x) => Number.isInteger(x) && (x as number) >= 0 && (x as number) < 256))
    return Uint8Array.from(from as readonly number[]);
  return fail(`expected bytes, got ${describePickled(from)}`);
};

const integer: Construct = ([value = 0], fail) => {
  if (typeof value === 'number' || typeof value === 'bigint') return exact(BigInt(value));
  return fail(`expected an integer, got ${describePickled(value)}`);
};

/** Protocols 0 and 1 make objects of `(class, base, state of the base)`. */
const reconstructor: Construct = ([type], fail) =>
  type instanceof PickleGlobal ? new PickleObject(type, []) : fail(`expected a class, got ${describePickled(type)}`);

const tuple: Construct = ([from = []], fail) =>
  Array.isArray(from) ? (isTuple(from) ? from : Object.freeze([...from])) : fail(`expected elements, got ${describePickled(from)}`);

const builtins: Readonly<Record<string, Construct>> = {
  set,
  frozenset: set,
  bytes: byteString,
  bytearray: byteString,
  int: integer,
  dict: dictionary,
  tuple,
};

/** Plain Python data and NumPy's. */
export const pythonConstructors: Constructors = new Map<string, Construct>([
  ['collections.OrderedDict', dictionary],
  // A default is a function, and never called.
  ['collections.defaultdict', () => new Map()],
  ['collections.Counter', dictionary],
  ['_codecs.encode', encode],
  ['copyreg._reconstructor', reconstructor],
  ['copy_reg._reconstructor', reconstructor],
  ...Object.entries(builtins).flatMap(([name, construct]): [string, Construct][] => [
    [`builtins.${name}`, construct],
    [`__builtin__.${name}`, construct],
  ]),
  ...numpyConstructors,
]);
