import type { PickleMachine } from './machine.js';
import type { PickleValue } from './values.js';

/** Opcode by its byte: its name in Python's `pickletools`, and what it does. */
export type Opcodes = Readonly<Record<string, readonly [name: string, run: (machine: PickleMachine) => void]>>;

/** As Python refuses longer ones: reading decimals takes time that grows with the square of their length. */
const MAX_DIGITS = 4300;
const MAX_LONG_BYTES = 4096;

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');

/** Opcodes of single values. */
export const literals: Opcodes = {
  N: ['NONE', (m) => m.push(null)],
  '\x88': ['NEWTRUE', (m) => m.push(true)],
  '\x89': ['NEWFALSE', (m) => m.push(false)],
  I: ['INT', (m) => m.push(decimal(m, true))],
  L: ['LONG', (m) => m.push(decimal(m, false))],
  J: ['BININT', (m) => m.push(m.unsigned(4) | 0)],
  K: ['BININT1', (m) => m.push(m.unsigned(1))],
  M: ['BININT2', (m) => m.push(m.unsigned(2))],
  '\x8a': ['LONG1', (m) => m.push(twosComplement(m, m.unsigned(1)))],
  '\x8b': ['LONG4', (m) => m.push(twosComplement(m, m.unsigned(4)))],
  F: ['FLOAT', (m) => m.push(decimalFloat(m))],
  G: [
    'BINFLOAT',
    (m) => {
      const bytes = m.take(8);
      m.push(new DataView(bytes.buffer, bytes.byteOffset, 8).getFloat64(0));
    },
  ],
  // What Python 2 called str: text, as PyTorch takes it.
  S: ['STRING', (m) => m.pushNew(text(quoted(m)))],
  T: ['BINSTRING', (m) => m.pushNew(text(m.take(m.unsigned(4))))],
  U: ['SHORT_BINSTRING', (m) => m.pushNew(text(m.take(m.unsigned(1))))],
  V: ['UNICODE', (m) => m.pushNew(escapedUnicode(m))],
  X: ['BINUNICODE', (m) => m.pushNew(utf8.decode(m.take(m.unsigned(4))))],
  '\x8c': ['SHORT_BINUNICODE', (m) => m.pushNew(utf8.decode(m.take(m.unsigned(1))))],
  '\x8d': ['BINUNICODE8', (m) => m.pushNew(utf8.decode(m.take(m.unsigned(8))))],
  B: ['BINBYTES', (m) => m.pushNew(m.take(m.unsigned(4)).slice())],
  C: ['SHORT_BINBYTES', (m) => m.pushNew(m.take(m.unsigned(1)).slice())],
  '\x8e': ['BINBYTES8', (m) => m.pushNew(m.take(m.unsigned(8)).slice())],
  '\x96': ['BYTEARRAY8', (m) => m.pushNew(m.take(m.unsigned(8)).slice())],
};

/** A number where it is exact, else a bigint. */
export function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function decimal(m: PickleMachine, booleans: boolean): PickleValue {
  const line = latin1(m.line(MAX_DIGITS + 2));
  // How booleans were written before they had an opcode.
  if (booleans && (line === '00' || line === '01')) return line === '01';
  const digits = /^([+-]?\d+)L?$/.exec(line)?.[1];
  if (digits === undefined) throw m.error(`expected an integer, got '${line.slice(0, 40)}'`);
  return exact(BigInt(digits.replace('+', '')));
}

function decimalFloat(m: PickleMachine): number {
  const line = latin1(m.line(400));
  const special = /^([+-]?)(inf|nan)$/.exec(line);
  if (special) return special[2] === 'nan' ? Number.NaN : special[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(line)) throw m.error(`expected a number, got '${line.slice(0, 40)}'`);
  return Number(line);
}

function twosComplement(m: PickleMachine, length: number): number | bigint {
  if (length > MAX_LONG_BYTES) throw m.error(`an integer of ${length} bytes; the limit is ${MAX_LONG_BYTES}`);
  if (length === 0) return 0;
  const hex = Buffer.from(m.take(length)).reverse().toString('hex');
  return exact(BigInt.asIntN(8 * length, BigInt(`0x${hex}`)));
}

function text(bytes: Uint8Array): string {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return latin1(bytes);
  }
}

const escapes: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', a: '\x07', b: '\b', f: '\f', v: '\v', '\n': '' };

/** The bytes of a string as Python's repr writes it. */
function quoted(m: PickleMachine): Uint8Array {
  const line = latin1(m.line());
  const inner = /^(['"])(.*)\1$/s.exec(line)?.[2];
  if (inner === undefined) throw m.error(`expected a string in quotes, got '${line.slice(0, 40)}'`);
  const plain = inner.replace(/\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)/gs, (_, code: string) => {
    if (/^x./.test(code)) return String.fromCharCode(Number.parseInt(code.slice(1), 16));
    if (/^[0-7]/.test(code)) return String.fromCharCode(Number.parseInt(code, 8) & 255);
    return escapes[code] ?? code;
  });
  return Buffer.from(plain, 'latin1');
}

function escapedUnicode(m: PickleMachine): string {
  return latin1(m.line(2 ** 26)).replace(/\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})/g, (_, short?: string, long?: string) => {
    const code = Number.parseInt(short ?? long!, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : m.fail(`there is no character ${code}`);
  });
}
