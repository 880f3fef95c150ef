import { type ByteCursor, OutOfBytes } from './cursor.js';
import { PickleError } from './error.js';
import { describePickled, isTuple, PickleGlobal, PickleLeaf, PickleObject, type PickleValue } from './values.js';

/** What a function or class of this table makes of its arguments. `fail` throws an error that says where. */
export type Construct = (args: readonly PickleValue[], fail: (detail: string) => never) => PickleValue;

/** By `module.name`. Whatever is not in it becomes an inert {@link PickleObject}. */
export type Constructors = ReadonlyMap<string, Construct>;

export interface PickleLimits {
  /** Bytes of the pickle. */
  readonly bytes: number;
  /** Containers, objects and byte strings. */
  readonly objects: number;
  /** Entries of the memo, and of the stack. */
  readonly entries: number;
}

/** Room for hundreds of thousands of tensors. A pickle of one byte an object would otherwise grow to hundreds of times its size. */
export const DEFAULT_LIMITS: PickleLimits = { bytes: 2 ** 28, objects: 2 ** 22, entries: 2 ** 24 - 1 };

export interface PickleOptions {
  /** For messages. */
  readonly path: string;
  readonly constructors: Constructors;
  /** Default: refuse persistent ids. */
  readonly persistent?: (id: PickleValue, fail: (detail: string) => never) => PickleValue;
  readonly limits?: Partial<PickleLimits>;
}

/** What opcodes act on: stack, marks and memo of Python's pickle machine, with every access checked. */
export class PickleMachine {
  readonly stack: PickleValue[] = [];
  /** Heights of the stack. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  readonly #limits: PickleLimits;
  readonly #start: number;
  #objects = 0;
  /** Where the running opcode lies, and which it is. */
  offset = 0;
  opcode: string | undefined;
  /** Set by STOP. */
  finished = false;

  constructor(
    readonly cursor: ByteCursor,
    readonly options: PickleOptions,
  ) {
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#start = cursor.offset;
  }

  /** Reads the next opcode's byte. */
  next(): number {
    this.offset = this.cursor.offset - this.#start;
    this.opcode = undefined;
    if (this.offset > this.#limits.bytes) throw this.error(`the pickle is longer than the limit of ${this.#limits.bytes} bytes`);
    return this.take(1)[0]!;
  }

  error(detail: string): PickleError {
    return new PickleError(this.options.path, this.offset, this.opcode, detail);
  }

  /** Throws it, for those who can't. */
  readonly fail = (detail: string): never => {
    throw this.error(detail);
  };

  stop(): void {
    this.finished = true;
  }

  push(value: PickleValue): void {
    if (this.stack.length >= this.#limits.entries) throw this.error(`more than ${this.#limits.entries} values on the stack`);
    this.stack.push(value);
  }

  /** Of a value that takes memory of its own. */
  pushNew(value: PickleValue): void {
    if (++this.#objects > this.#limits.objects) throw this.error(`more than the limit of ${this.#limits.objects} objects`);
    this.push(value);
  }

  pop(): PickleValue {
    if (this.stack.length <= (this.#marks.at(-1) ?? 0)) throw this.error('the stack is empty');
    return this.stack.pop()!;
  }

  get top(): PickleValue {
    if (this.stack.length <= (this.#marks.at(-1) ?? 0)) throw this.error('the stack is empty');
    return this.stack.at(-1)!;
  }

  mark(): void {
    if (this.#marks.length >= this.#limits.entries) throw this.error(`more than ${this.#limits.entries} marks`);
    this.#marks.push(this.stack.length);
  }

  /** Everything above the last mark, which goes too. */
  popMark(): PickleValue[] {
    const height = this.#marks.pop();
    if (height === undefined) throw this.error('there is no mark on the stack');
    return this.stack.splice(height);
  }

  /** Takes away the mark if it is on top. */
  popTopMark(): boolean {
    if (this.#marks.at(-1) !== this.stack.length) return false;
    this.#marks.pop();
    return true;
  }

  remember(key: number): void {
    if (this.#memo.size >= this.#limits.entries) throw this.error(`more than ${this.#limits.entries} values in the memo`);
    this.#memo.set(key, this.top);
  }

  rememberNext(): void {
    this.remember(this.#memo.size);
  }

  recall(key: number): void {
    const value = this.#memo.get(key);
    if (value === undefined) throw this.error(`the memo has no entry ${key}`);
    this.push(value as PickleValue);
  }

  take(length: number): Uint8Array {
    if (length > this.#limits.bytes) throw this.error(`a value of ${length} bytes; the limit is ${this.#limits.bytes}`);
    try {
      return this.cursor.take(length);
    } catch (error) {
      return this.#truncated(error);
    }
  }

  line(longest = 2 ** 20): Uint8Array {
    try {
      return this.cursor.line(longest);
    } catch (error) {
      return this.#truncated(error);
    }
  }

  /** Little-endian. */
  unsigned(width: 1 | 2 | 4 | 8): number {
    const bytes = this.take(width);
    let value = 0;
    for (let i = width - 1; i >= 0; i--) value = value * 256 + bytes[i]!;
    if (!Number.isSafeInteger(value)) throw this.error(`a length of ${value} bytes`);
    return value;
  }

  /** Looks a class or function up in the table; what is not there is kept, not called. */
  construct(target: PickleValue, args: PickleValue): void {
    if (!(target instanceof PickleGlobal)) throw this.error(`expected a class or function, got ${describePickled(target)}`);
    if (!Array.isArray(args)) throw this.error(`expected a tuple of arguments, got ${describePickled(args)}`);
    const known = this.options.constructors.get(String(target));
    this.pushNew(known ? known(args, this.fail) : new PickleObject(target, args));
  }

  build(state: PickleValue): void {
    const target = this.top;
    if (target instanceof PickleObject) target.state = state;
    else if (target instanceof PickleLeaf && target.setState(state)) return;
    // Attributes of a dictionary, such as the versions that PyTorch hangs on a state dict.
    else if (!(target instanceof Map)) throw this.error(`${describePickled(target)} takes no state`);
  }

  append(items: readonly PickleValue[]): void {
    const target = this.top;
    const list = target instanceof PickleObject ? target.items : target;
    if (!Array.isArray(list) || isTuple(list)) throw this.error(`expected a list to append to, got ${describePickled(target)}`);
    for (const item of items) (list as PickleValue[]).push(item);
  }

  setItems(pairs: readonly PickleValue[]): void {
    const target = this.top;
    const map = target instanceof PickleObject ? target.entries : target;
    if (!(map instanceof Map)) throw this.error(`expected a dictionary to set items of, got ${describePickled(target)}`);
    fillMap(map, pairs, this.fail);
  }

  #truncated(error: unknown): never {
    if (error instanceof OutOfBytes) throw this.error(`${error.message}: the file is truncated or damaged`);
    throw error;
  }
}

export function fillMap(map: Map<PickleValue, PickleValue>, pairs: readonly PickleValue[], fail: (detail: string) => never): void {
  if (pairs.length % 2 !== 0) fail(`expected keys and values, got ${pairs.length} of both together`);
  for (let i = 0; i < pairs.length; i += 2) map.set(pairs[i]!, pairs[i + 1]!);
}
