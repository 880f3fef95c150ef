import { literals, type Opcodes } from './literals.js';
import { fillMap, type PickleMachine } from './machine.js';
import { describePickled, PickleGlobal, type PickleValue } from './values.js';

const HIGHEST_PROTOCOL = 5;

const containers: Opcodes = {
  '(': ['MARK', (m) => m.mark()],
  '0': ['POP', (m) => void (m.popTopMark() || m.pop())],
  '1': ['POP_MARK', (m) => void m.popMark()],
  '2': ['DUP', (m) => m.push(m.top)],
  ')': ['EMPTY_TUPLE', (m) => m.pushNew(tuple([]))],
  t: ['TUPLE', (m) => m.pushNew(tuple(m.popMark()))],
  '\x85': ['TUPLE1', (m) => tupleOf(m, 1)],
  '\x86': ['TUPLE2', (m) => tupleOf(m, 2)],
  '\x87': ['TUPLE3', (m) => tupleOf(m, 3)],
  ']': ['EMPTY_LIST', (m) => m.pushNew([])],
  l: ['LIST', (m) => m.pushNew(m.popMark())],
  a: [
    'APPEND',
    (m) => {
      const item = m.pop();
      m.append([item]);
    },
  ],
  e: ['APPENDS', (m) => m.append(m.popMark())],
  '}': ['EMPTY_DICT', (m) => m.pushNew(new Map())],
  d: [
    'DICT',
    (m) => {
      const map = new Map<PickleValue, PickleValue>();
      fillMap(map, m.popMark(), m.fail);
      m.pushNew(map);
    },
  ],
  s: [
    'SETITEM',
    (m) => {
      const value = m.pop();
      const key = m.pop();
      m.setItems([key, value]);
    },
  ],
  u: ['SETITEMS', (m) => m.setItems(m.popMark())],
  '\x8f': ['EMPTY_SET', (m) => m.pushNew(new Set())],
  '\x90': [
    'ADDITEMS',
    (m) => {
      const items = m.popMark();
      const target = m.top;
      if (target instanceof Set) for (const item of items) target.add(item);
      else m.append(items);
    },
  ],
  '\x91': ['FROZENSET', (m) => m.pushNew(new Set(m.popMark()))],
};

const memo: Opcodes = {
  p: ['PUT', (m) => m.remember(memoKey(m))],
  q: ['BINPUT', (m) => m.remember(m.unsigned(1))],
  r: ['LONG_BINPUT', (m) => m.remember(m.unsigned(4))],
  '\x94': ['MEMOIZE', (m) => m.rememberNext()],
  g: ['GET', (m) => m.recall(memoKey(m))],
  h: ['BINGET', (m) => m.recall(m.unsigned(1))],
  j: ['LONG_BINGET', (m) => m.recall(m.unsigned(4))],
};

const objects: Opcodes = {
  c: [
    'GLOBAL',
    (m) => {
      const module = plainLine(m);
      m.pushNew(new PickleGlobal(module, plainLine(m)));
    },
  ],
  '\x93': [
    'STACK_GLOBAL',
    (m) => {
      const name = m.pop();
      const module = m.pop();
      if (typeof name !== 'string' || typeof module !== 'string')
        throw m.error(`expected the names of a module and a class, got ${describePickled(module)} and ${describePickled(name)}`);
      m.pushNew(new PickleGlobal(module, name));
    },
  ],
  R: ['REDUCE', construct],
  '\x81': ['NEWOBJ', construct],
  '\x92': [
    'NEWOBJ_EX',
    (m) => {
      const named = m.pop();
      if (!(named instanceof Map)) throw m.error(`expected a dictionary of named arguments, got ${describePickled(named)}`);
      const args = m.pop();
      if (!Array.isArray(args)) throw m.error(`expected a tuple of arguments, got ${describePickled(args)}`);
      m.construct(m.pop(), named.size > 0 ? tuple([...args, named]) : args);
    },
  ],
  i: [
    'INST',
    (m) => {
      const module = plainLine(m);
      const name = plainLine(m);
      m.construct(new PickleGlobal(module, name), tuple(m.popMark()));
    },
  ],
  o: [
    'OBJ',
    (m) => {
      const [target = null, ...args] = m.popMark();
      m.construct(target, tuple(args));
    },
  ],
  b: [
    'BUILD',
    (m) => {
      const state = m.pop();
      m.build(state);
    },
  ],
  P: ['PERSID', (m) => persistent(m, plainLine(m))],
  Q: ['BINPERSID', (m) => persistent(m, m.pop())],
};

const control: Opcodes = {
  '\x80': [
    'PROTO',
    (m) => {
      const protocol = m.unsigned(1);
      if (protocol > HIGHEST_PROTOCOL) throw m.error(`protocol ${protocol}; supported: 0 to ${HIGHEST_PROTOCOL}`);
    },
  ],
  '\x95': [
    'FRAME',
    (m) => {
      const length = m.unsigned(8);
      if (length > m.cursor.left) throw m.error(`a frame of ${length} bytes, ${m.cursor.left} are left: the file is truncated or damaged`);
    },
  ],
  '.': ['STOP', (m) => m.stop()],
  '\x98': ['READONLY_BUFFER', () => {}],
  '\x97': ['NEXT_BUFFER', (m) => m.fail('buffers outside of the pickle are not supported')],
  '\x82': ['EXT1', extension],
  '\x83': ['EXT2', extension],
  '\x84': ['EXT4', extension],
};

/** By byte. */
export const opcodes: readonly (Opcodes[string] | undefined)[] = Array.from({ length: 256 }, (_, code) => {
  const byte = String.fromCharCode(code);
  return literals[byte] ?? containers[byte] ?? memo[byte] ?? objects[byte] ?? control[byte];
});

function tuple(items: PickleValue[]): readonly PickleValue[] {
  return Object.freeze(items);
}

function tupleOf(m: PickleMachine, count: number): void {
  const items: PickleValue[] = [];
  for (let i = 0; i < count; i++) items.unshift(m.pop());
  m.pushNew(tuple(items));
}

function construct(m: PickleMachine): void {
  const args = m.pop();
  m.construct(m.pop(), args);
}

function persistent(m: PickleMachine, id: PickleValue): void {
  const { persistent } = m.options;
  if (!persistent) throw m.error(`a persistent id (${describePickled(id)}), which only PyTorch's files give a meaning`);
  m.push(persistent(id, m.fail));
}

function extension(m: PickleMachine): void {
  throw m.error('codes of an extension registry are not supported');
}

function plainLine(m: PickleMachine): string {
  return Buffer.from(m.line(2 ** 12)).toString('utf8');
}

function memoKey(m: PickleMachine): number {
  const line = plainLine(m);
  const key = Number(line);
  if (!/^\d+$/.test(line) || !Number.isSafeInteger(key)) throw m.error(`expected a place in the memo, got '${line.slice(0, 40)}'`);
  return key;
}
