import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type NumpyArray,
  openTorchFile,
  PickleError,
  PickleGlobal,
  PickleObject,
  type PickleValue,
  TorchFileError,
} from '@deepspeed-ts/core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import { call, dict, float, instance, type Py, PyCall, PyFloat, PyGlobal, PySet, PyTuple, pickle, tuple } from './pickle-writer.js';
import { zip } from './zip-writer.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pickle-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** What is read of a pickle, in a file as `torch.save` makes it. */
function read(bytes: Uint8Array): PickleValue {
  const path = join(folder, 'file.pt');
  writeFileSync(path, zip({ 'archive/data.pkl': bytes }));
  using file = openTorchFile(path);
  return file.root;
}

function refusal(bytes: Uint8Array): PickleError {
  try {
    read(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(PickleError);
    return error as PickleError;
  }
  throw new Error('the pickle was accepted');
}

const protocols = [0, 1, 2, 3, 4, 5];
const ascii = (text: string) => Buffer.from(text, 'latin1');

/** What stands for a Python value once it is read. */
function expected(value: Py): PickleValue {
  if (value instanceof PyFloat) return value.value;
  if (value instanceof PyTuple) return Object.freeze(value.items.map(expected));
  if (value instanceof PySet) return new Set(value.items.map(expected));
  if (value instanceof PyGlobal) return new PickleGlobal(value.module, value.name);
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [expected(key), expected(item)]));
  if (Array.isArray(value)) return value.map(expected);
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (value instanceof PyCall) {
    const object = new PickleObject(new PickleGlobal(value.target.module, value.target.name), value.args.map(expected));
    object.state = expected(value.state ?? null);
    return object;
  }
  return value as PickleValue;
}

const { python } = fc.letrec<{ python: Py }>((tie) => ({
  python: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.constantFrom<Py>(null, true, false),
    fc.integer(),
    fc.bigInt({ min: -(2n ** 300n), max: 2n ** 300n }),
    fc.double().map(float),
    fc.string({ unit: 'binary' }),
    fc.string({ minLength: 250, maxLength: 270, unit: 'grapheme' }),
    fc.uint8Array({ maxLength: 300 }),
    fc.array(tie('python'), { maxLength: 5 }),
    fc.array(tie('python'), { maxLength: 5 }).map((items) => tuple(...items)),
    fc.uniqueArray(fc.integer(), { maxLength: 5 }).map((items) => new PySet(items)),
    fc.dictionary(fc.string(), tie('python'), { maxKeys: 5, noNullPrototype: true }).map(dict),
    fc
      .dictionary(fc.stringMatching(/^[a-z]{1,5}$/), tie('python'), { maxKeys: 3, noNullPrototype: true })
      .map((state) => instance('some.module', 'Class', state)),
  ),
}));

describe.each(protocols)('a pickle of protocol %i', (protocol) => {
  test('gives back any nested structure', () => {
    fc.assert(
      fc.property(python, (value) => {
        expect(read(pickle(value, protocol))).toEqual(expected(value));
      }),
      { numRuns: 60 },
    );
  });

  it('calls nothing that it names: what is not known becomes an object that says what it was', () => {
    const evil = call('os', 'system', ['touch owned'], dict({ a: 1 }));
    const object = read(pickle([evil, call('builtins', 'eval', ['1'])], protocol)) as PickleObject[];
    expect(object.map(({ type, args }) => [String(type), args])).toEqual([
      ['os.system', ['touch owned']],
      ['builtins.eval', ['1']],
    ]);
    expect(object[0]!.attributes).toEqual(new Map([['a', 1]]));
  });

  it('refuses to end anywhere but at its end', () => {
    const whole = pickle(
      dict({ numbers: [1, 70000, float(0.5)], text: 'text', tuple: tuple(1, 2), object: instance('a', 'B', { c: null }) }),
      protocol,
    );
    for (let length = 0; length < whole.length; length++) {
      const error = refusal(whole.subarray(0, length));
      expect(error.message, `cut to ${length} bytes`).toMatch(/file\.pt \(archive\/data\.pkl\): byte \d+/);
      expect(error.offset).toBeLessThanOrEqual(length);
    }
  });
});

describe('pickles as Python itself writes them', () => {
  const numpy = 'numpy._core.multiarray';
  const array = (home: string, order: string, fortran: boolean, bytes: readonly number[]) =>
    new PyCall(
      new PyGlobal(home, '_reconstruct'),
      [new PyGlobal('numpy', 'ndarray'), tuple(0), 'b'],
      tuple(
        1,
        tuple(2, 3),
        new PyCall(new PyGlobal('numpy', 'dtype'), ['i2', false, true], tuple(3, order, null, null, null, -1, -1, 0)),
        fortran,
        Uint8Array.from(bytes),
      ),
    );
  it.each(['numpy.core.multiarray', numpy])('arrays of %s come in any order of bytes and axes', (home) => {
    const little = read(pickle(array(home, '<', false, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0, 1]), 2)) as NumpyArray;
    expect(little.shape).toEqual([2, 3]);
    expect(little.values()).toEqual([1, 2, 3, 4, 5, 256]);
    const big = read(pickle(array(home, '>', true, [0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 1, 0]), 2)) as NumpyArray;
    expect(big.values()).toEqual([1, 2, 3, 4, 5, 256]);
  });

  it('NumPy scalars are numbers', () => {
    const scalar = call(numpy, 'scalar', [
      new PyCall(new PyGlobal('numpy', 'dtype'), ['f8', false, true], tuple(3, '<', null, null, null, -1, -1, 0)),
      new Uint8Array(Float64Array.of(2.5).buffer),
    ]);
    expect(read(pickle(scalar, 4))).toBe(2.5);
  });

  it.each<[string, string, PickleValue]>([
    ['a string in quotes, with escapes', "S'it\\'s\\x41\\n'\n.", "it'sA\n"],
    ['booleans among integers', '(lI01\naI00\naI7\na.', [true, false, 7]],
    ['an instance with arguments', '(I1\nI2\nia\nB\n.', Object.assign(new PickleObject(new PickleGlobal('a', 'B'), [1, 2]))],
    [
      'an OrderedDict of pairs',
      '\x80\x02ccollections\nOrderedDict\n](]X\x01\x00\x00\x00aK\x01e]X\x01\x00\x00\x00bK\x02eea\x85R.'
        .replace('](]', ']](')
        .replace('e]X', 'ea](X')
        .replace('eea', 'ea'),
      new Map([
        ['a', 1],
        ['b', 2],
      ]),
    ],
    ['values popped and doubled', '(I1\nI2\n0I3\n2t.', Object.freeze([1, 3, 3])],
  ])('%s', (_, text, value) => {
    expect(read(ascii(text))).toEqual(value);
  });

  it('a list may hold itself', () => {
    const list = read(ascii(']q\x00h\x00a.')) as PickleValue[];
    expect(list[0]).toBe(list);
  });
});

describe('a hostile pickle', () => {
  it.each([
    ['an unknown opcode', 'N\xff', /byte 1: there is no opcode 0xff/],
    ['an empty stack', '.', /byte 0, opcode STOP/],
    ['reaching below a mark', '(.', /opcode STOP: the stack is empty|the stack is empty/],
    ['no mark', 'N1', /opcode POP_MARK: there is no mark/],
    ['a memo that has nothing', 'h\x05.', /opcode BINGET: the memo has no entry 5/],
    ['appending to a tuple', ')Na.', /opcode APPEND: expected a list to append to, got a tuple of 0/],
    ['a dictionary with half an entry', '(Nd.', /opcode DICT: expected keys and values/],
    ['a string longer than the file', 'X\xff\xff\xff\x7f', /opcode BINUNICODE: a value of 2147483647 bytes; the limit is/],
    ['bytes longer than the file', '\x8e\x00\x00\x00\x01\x00\x00\x00\x00', /opcode BINBYTES8: 16777216 bytes are expected, 0 are left/],
    ['bytes longer than there are numbers', '\x8e\xff\xff\xff\xff\xff\xff\xff\xff', /opcode BINBYTES8: a length of/],
    ['an integer of many bytes', `\x8b\x00\x00\x01\x00${'a'.repeat(65536)}`, /opcode LONG4: an integer of 65536 bytes; the limit is 4096/],
    ['an integer of many digits', `L${'1'.repeat(5000)}L\n.`, /opcode LONG: a line of more than/],
    ['calling a string', 'X\x01\x00\x00\x00a)R.', /opcode REDUCE: expected a class or function, got 'a'/],
    ['a state for a number', 'K\x01}b.', /opcode BUILD: 1 takes no state/],
    ['a protocol to come', '\x80\x09N.', /opcode PROTO: protocol 9; supported: 0 to 5/],
    ['an extension code', '\x82\x01.', /opcode EXT1: codes of an extension registry/],
    ['a persistent id that is no storage', 'K\x01Q.', /opcode BINPERSID: expected the id of a storage, got 1/],
  ])('with %s is refused, naming file, byte and opcode', (_, text, message) => {
    const error = refusal(ascii(text));
    expect(error.message).toMatch(message);
    expect(error.message).toContain('file.pt (archive/data.pkl)');
  });

  it('of millions of one-byte objects is refused before it fills the memory', () => {
    expect(refusal(Buffer.concat([Buffer.alloc(4_500_000, ']'), ascii('.')])).message).toMatch(/more than the limit of 4194304 objects/);
  });

  it('of any depth is read without recursion', () => {
    const depth = 300_000;
    let value = read(Buffer.concat([Buffer.alloc(depth, ']'), Buffer.alloc(depth - 1, 'a'), ascii('.')])) as readonly PickleValue[];
    let found = 1;
    for (; value.length > 0; value = value[0] as readonly PickleValue[]) found++;
    expect(found).toBe(depth);
  });

  it('made by damaging a good one is read or refused, and nothing else', () => {
    const whole = pickle(
      [dict({ a: tuple(1, float(2)), b: [new PySet([1])] }), call('collections', 'OrderedDict'), instance('x', 'Y', { z: 1n << 70n })],
      4,
    );
    const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const damaged = Buffer.from(whole);
        for (const [at, byte] of changes) damaged[at] = byte;
        try {
          read(damaged);
        } catch (error) {
          expect(error instanceof PickleError || error instanceof TorchFileError, String(error)).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});
