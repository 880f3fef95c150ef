/** What a pickle holds. Tuples are frozen arrays; integers beyond 2^53 are bigints; dictionaries, ordered or not, are maps. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly PickleValue[]
  | Map<PickleValue, PickleValue>
  | Set<PickleValue>
  | PickleGlobal
  | PickleObject
  | PickleLeaf;

/** A class or function that a pickle names. It is a name here and nothing else. */
export class PickleGlobal {
  constructor(
    readonly module: string,
    readonly name: string,
  ) {}

  toString(): string {
    return `${this.module}.${this.name}`;
  }
}

/** An instance of a class that means nothing here: what the pickle would have built it from, inert. */
export class PickleObject {
  /** What its `__setstate__` would be given. */
  state: PickleValue = null;
  /** Elements, where it is a kind of list or set. */
  readonly items: PickleValue[] = [];
  /** Entries, where it is a kind of dictionary. */
  readonly entries = new Map<PickleValue, PickleValue>();

  constructor(
    readonly type: PickleGlobal,
    readonly args: readonly PickleValue[],
  ) {}

  /** Its attributes, where the state is a dictionary of them or a pair of dictionaries, as classes with slots have. */
  get attributes(): Map<string, PickleValue> {
    const attributes = new Map<string, PickleValue>();
    for (const part of Array.isArray(this.state) ? this.state : [this.state]) {
      if (part instanceof Map) for (const [name, value] of part) if (typeof name === 'string') attributes.set(name, value);
    }
    return attributes;
  }

  toString(): string {
    return `an object of ${this.type}`;
  }
}

/** Values with a meaning here that plain Python data does not have, such as tensors. */
export abstract class PickleLeaf {
  /** What it is, for messages. */
  abstract readonly what: string;

  /** Takes the state of a BUILD; false where it has none. */
  setState(_state: PickleValue): boolean {
    return false;
  }
}

export function isTuple(value: PickleValue): value is readonly PickleValue[] {
  return Array.isArray(value) && Object.isFrozen(value);
}

/** For messages. */
export function describePickled(value: PickleValue | undefined): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'None';
  if (typeof value === 'string') return value.length > 40 ? `a string of ${value.length} characters` : `'${value}'`;
  if (typeof value === 'object') {
    if (value instanceof PickleLeaf) return value.what;
    if (value instanceof PickleGlobal || value instanceof PickleObject) return String(value);
    if (value instanceof Map) return `a dictionary of ${value.size}`;
    if (value instanceof Set) return `a set of ${value.size}`;
    if (value instanceof Uint8Array) return `${value.length} bytes`;
    return `a ${isTuple(value) ? 'tuple' : 'list'} of ${(value as readonly PickleValue[]).length}`;
  }
  return String(value);
}
