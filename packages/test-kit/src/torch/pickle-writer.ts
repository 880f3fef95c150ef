/**
 * Writes pickles as Python would, for tests of what reads them: it shares no code with the reader. Plain JavaScript values stand for Python's:
 * arrays are lists, maps dictionaries, whole numbers int; the classes below stand for the rest.
 */
export type Py =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Py[]
  | ReadonlyMap<Py, Py>
  | PyFloat
  | PyTuple
  | PySet
  | PyGlobal
  | PyCall
  | PyPersistent;

export class PyFloat {
  constructor(readonly value: number) {}
}

export class PyTuple {
  constructor(readonly items: readonly Py[]) {}
}

export class PySet {
  constructor(readonly items: readonly Py[]) {}
}

export class PyGlobal {
  constructor(
    readonly module: string,
    readonly name: string,
  ) {}
}

/** A call of a class or function, and what its result's `__setstate__` is then given. */
export class PyCall {
  constructor(
    readonly target: PyGlobal,
    readonly args: readonly Py[],
    readonly state?: Py,
    /** Made by `__new__`, as plain objects are. */
    readonly isNew = false,
  ) {}
}

/** A persistent id. */
export class PyPersistent {
  constructor(readonly id: Py) {}
}

export const float = (value: number) => new PyFloat(value);
export const tuple = (...items: Py[]) => new PyTuple(items);
export const dict = (entries: Readonly<Record<string, Py>>): ReadonlyMap<Py, Py> => new Map(Object.entries(entries));
export const call = (module: string, name: string, args: readonly Py[] = [], state?: Py) =>
  new PyCall(new PyGlobal(module, name), args, state);
export const instance = (module: string, name: string, state: Readonly<Record<string, Py>>) =>
  new PyCall(new PyGlobal(module, name), [], dict(state), true);

/** A pickle of a protocol from 0 to 5. */
export function pickle(value: Py, protocol: number): Buffer {
  const writer = new Writer(protocol);
  if (protocol >= 2) writer.raw(0x80, protocol);
  writer.write(value);
  writer.text('.');
  return writer.bytes();
}

class Writer {
  readonly #parts: Buffer[] = [];
  /** Globals that were written, by their place in the memo. */
  readonly #memo = new Map<string, number>();

  constructor(readonly protocol: number) {}

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  raw(...bytes: number[]): void {
    this.#parts.push(Buffer.from(bytes));
  }

  text(text: string): void {
    this.#parts.push(Buffer.from(text, 'latin1'));
  }

  write(value: Py): void {
    if (value === null) this.text('N');
    else if (typeof value === 'boolean') this.#boolean(value);
    else if (typeof value === 'number' || typeof value === 'bigint') this.#integer(BigInt(value));
    else if (typeof value === 'string') this.#string(value);
    else if (value instanceof Uint8Array) this.#byteString(value);
    else if (value instanceof PyFloat) this.#float(value.value);
    else if (value instanceof PyTuple) this.#tuple(value.items);
    else if (value instanceof PySet) this.#set(value.items);
    else if (value instanceof PyGlobal) this.#global(value);
    else if (value instanceof PyCall) this.#call(value);
    else if (value instanceof PyPersistent) this.#persistent(value.id);
    else if (value instanceof Map) this.#dictionary(value);
    else this.#list(value as readonly Py[]);
  }

  #boolean(value: boolean): void {
    if (this.protocol >= 2) this.raw(value ? 0x88 : 0x89);
    else this.text(value ? 'I01\n' : 'I00\n');
  }

  #integer(value: bigint): void {
    if (this.protocol === 0) {
      this.text(value >= -(2n ** 31n) && value < 2n ** 31n ? `I${value}\n` : `L${value}L\n`);
      return;
    }
    if (value >= 0n && value < 256n) {
      this.raw(0x4b, Number(value));
      return;
    }
    if (value >= 0n && value < 65536n) {
      this.#packed('M', 2, (b) => b.writeUInt16LE(Number(value)));
      return;
    }
    if (value >= -(2n ** 31n) && value < 2n ** 31n) {
      this.#packed('J', 4, (b) => b.writeInt32LE(Number(value)));
      return;
    }
    if (this.protocol === 1) {
      this.text(`L${value}L\n`);
      return;
    }
    let width = 1;
    while (value < -(2n ** BigInt(8 * width - 1)) || value >= 2n ** BigInt(8 * width - 1)) width++;
    const little = Array.from({ length: width }, (_, i) => Number((BigInt.asUintN(8 * width, value) >> BigInt(8 * i)) & 255n));
    if (width < 256) this.raw(0x8a, width, ...little);
    else {
      this.#packed('\x8b', 4, (b) => b.writeInt32LE(width));
      this.raw(...little);
    }
  }

  #float(value: number): void {
    if (this.protocol > 0) {
      this.#packed('G', 8, (b) => b.writeDoubleBE(value));
      return;
    }
    const special = Number.isNaN(value)
      ? 'nan'
      : value === Number.POSITIVE_INFINITY
        ? 'inf'
        : value === Number.NEGATIVE_INFINITY
          ? '-inf'
          : undefined;
    this.text(`F${special ?? (Object.is(value, -0) ? '-0.0' : String(value))}\n`);
  }

  #string(value: string): void {
    if (this.protocol === 0) {
      // As Python: beyond latin1, and what would end the line, escaped.
      const escaped = [...value].map((c) => {
        const code = c.codePointAt(0)!;
        if (code > 0xffff) return `\\U${code.toString(16).padStart(8, '0')}`;
        return code > 0xff || '\\\n\r\0\x1a'.includes(c) ? `\\u${code.toString(16).padStart(4, '0')}` : c;
      });
      this.text(`V${escaped.join('')}\n`);
      return;
    }
    const bytes = Buffer.from(value, 'utf8');
    if (this.protocol >= 4 && bytes.length < 256) this.raw(0x8c, bytes.length);
    else this.#packed('X', 4, (b) => b.writeUInt32LE(bytes.length));
    this.#parts.push(bytes);
  }

  #byteString(value: Uint8Array): void {
    if (this.protocol < 3) {
      this.write(call('_codecs', 'encode', [Buffer.from(value).toString('latin1'), 'latin1']));
      return;
    }
    if (value.length < 256) this.raw(0x43, value.length);
    else this.#packed('B', 4, (b) => b.writeUInt32LE(value.length));
    this.#parts.push(Buffer.from(value));
  }

  #tuple(items: readonly Py[]): void {
    const short = this.protocol >= 2 && items.length >= 1 && items.length <= 3;
    if (items.length === 0 && this.protocol >= 1) {
      this.text(')');
      return;
    }
    if (!short) this.text('(');
    for (const item of items) this.write(item);
    this.raw(short ? 0x84 + items.length : 0x74);
  }

  #list(items: readonly Py[]): void {
    if (this.protocol === 0) {
      this.text('(l');
      for (const item of items) {
        this.write(item);
        this.text('a');
      }
      return;
    }
    this.text(']');
    if (items.length === 0) return;
    this.text('(');
    for (const item of items) this.write(item);
    this.text('e');
  }

  #dictionary(map: ReadonlyMap<Py, Py>): void {
    this.text(this.protocol === 0 ? '(d' : '}');
    if (this.protocol > 0 && map.size > 0) this.text('(');
    for (const [key, value] of map) {
      this.write(key);
      this.write(value);
      if (this.protocol === 0) this.text('s');
    }
    if (this.protocol > 0 && map.size > 0) this.text('u');
  }

  #set(items: readonly Py[]): void {
    if (this.protocol < 4) {
      this.write(call(this.protocol < 3 ? '__builtin__' : 'builtins', 'set', [items]));
      return;
    }
    this.raw(0x8f, 0x28);
    for (const item of items) this.write(item);
    this.raw(0x90);
  }

  #global({ module, name }: PyGlobal): void {
    const key = `${module}\n${name}`;
    const known = this.#memo.get(key);
    if (known !== undefined) {
      if (this.protocol === 0) this.text(`g${known}\n`);
      else this.#packed('j', 4, (b) => b.writeUInt32LE(known));
      return;
    }
    if (this.protocol >= 4) {
      this.#string(module);
      this.#string(name);
      this.raw(0x93);
    } else this.text(`c${key}\n`);
    const place = this.#memo.size;
    this.#memo.set(key, place);
    if (this.protocol === 0) this.text(`p${place}\n`);
    else if (this.protocol >= 4) this.raw(0x94);
    else this.#packed('r', 4, (b) => b.writeUInt32LE(place));
  }

  #call({ target, args, state, isNew }: PyCall): void {
    if (isNew && this.protocol < 2) {
      this.write(call('copy_reg', '_reconstructor', [target, new PyGlobal('__builtin__', 'object'), null]));
    } else {
      this.write(target);
      this.#tuple(args);
      this.raw(isNew ? 0x81 : 0x52);
    }
    if (state === undefined) return;
    this.write(state);
    this.text('b');
  }

  #persistent(id: Py): void {
    if (this.protocol === 0) {
      this.text(`P${String(id)}\n`);
      return;
    }
    this.write(id);
    this.text('Q');
  }

  #packed(opcode: string, width: number, put: (bytes: Buffer) => void): void {
    this.text(opcode);
    const bytes = Buffer.alloc(width);
    put(bytes);
    this.#parts.push(bytes);
  }
}
