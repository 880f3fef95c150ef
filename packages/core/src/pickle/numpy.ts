import { f16ToF32 } from '../tensor/half.js';
import type { Construct } from './machine.js';
import { describePickled, isTuple, PickleLeaf, PickleObject, type PickleValue } from './values.js';

type Element = number | bigint | boolean;
type Read = (view: DataView, at: number, little: boolean) => Element;

/** By NumPy's kind and width. */
const elements: Readonly<Record<string, Read>> = {
  b1: (v, at) => v.getUint8(at) !== 0,
  i1: (v, at) => v.getInt8(at),
  i2: (v, at, little) => v.getInt16(at, little),
  i4: (v, at, little) => v.getInt32(at, little),
  i8: (v, at, little) => safe(v.getBigInt64(at, little)),
  u1: (v, at) => v.getUint8(at),
  u2: (v, at, little) => v.getUint16(at, little),
  u4: (v, at, little) => v.getUint32(at, little),
  u8: (v, at, little) => safe(v.getBigUint64(at, little)),
  f2: (v, at, little) => f16ToF32(v.getUint16(at, little)),
  f4: (v, at, little) => v.getFloat32(at, little),
  f8: (v, at, little) => v.getFloat64(at, little),
};

/** NumPy's dtype, such as `f8`. */
export class NumpyDtype extends PickleLeaf {
  #little = true;

  constructor(readonly code: string) {
    super();
  }

  get what(): string {
    return `the NumPy dtype ${this.code}`;
  }

  get read(): Read | undefined {
    return elements[this.code];
  }

  get little(): boolean {
    return this.#little;
  }

  get width(): number {
    return Number(this.code.slice(1));
  }

  override setState(state: PickleValue): boolean {
    if (!Array.isArray(state)) return false;
    this.#little = state[1] !== '>';
    return true;
  }
}

/** A NumPy array. Its elements are decoded when asked for. */
export class NumpyArray extends PickleLeaf {
  constructor(
    public shape: readonly number[] = [],
    public dtype: NumpyDtype | undefined = undefined,
    public bytes: Uint8Array = new Uint8Array(),
    /** The first index moves fastest. */
    public fortran = false,
  ) {
    super();
  }

  get what(): string {
    return `a NumPy array of shape [${this.shape.join(', ')}]`;
  }

  /** In row-major order; `undefined` where the elements are no numbers. */
  values(): Element[] | undefined {
    const { dtype, bytes, shape } = this;
    const read = dtype?.read;
    if (!dtype || !read) return undefined;
    const count = shape.reduce((n, size) => n * size, 1);
    if (count * dtype.width !== bytes.length) return undefined;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Array.from({ length: count }, (_, i) => read(view, dtype.width * (this.fortran ? columnMajor(i, shape) : i), dtype.little));
  }

  override setState(state: PickleValue): boolean {
    if (!Array.isArray(state) || state.length !== 5) return false;
    const [, shape, dtype, fortran, bytes] = state as readonly PickleValue[];
    if (!isShape(shape!) || !(dtype instanceof NumpyDtype)) return false;
    this.shape = shape;
    this.dtype = dtype;
    this.fortran = fortran === true;
    // A list holds Python objects.
    if (bytes instanceof Uint8Array) this.bytes = bytes;
    return true;
  }
}

const dtype: Construct = (args, fail) => {
  const [code] = args;
  if (typeof code !== 'string') return fail(`expected the name of a dtype, got ${describePickled(code)}`);
  return new NumpyDtype(code.replace(/^[<>=|]/, ''));
};

const scalar: Construct = ([type, bytes], fail) => {
  if (!(type instanceof NumpyDtype) || !(bytes instanceof Uint8Array))
    return fail(`expected a dtype and bytes, got ${describePickled(type)} and ${describePickled(bytes)}`);
  const [value] = new NumpyArray([], type, bytes).values() ?? [];
  return value ?? new NumpyArray([], type, bytes);
};

const fromBuffer: Construct = (args, fail) => {
  const [bytes, type, shape, order] = args;
  if (!(bytes instanceof Uint8Array) || !(type instanceof NumpyDtype) || !isShape(shape!))
    return fail(`expected bytes, a dtype and a shape, got ${args.map(describePickled).join(', ')}`);
  return new NumpyArray(shape, type, bytes, order === 'F');
};

// NumPy 2 renamed its core.
const homes = ['numpy.core', 'numpy._core'];

export const numpyConstructors: readonly (readonly [string, Construct])[] = [
  ['numpy.dtype', dtype],
  ...homes.flatMap((home): [string, Construct][] => [
    [`${home}.multiarray.scalar`, scalar],
    [`${home}.multiarray._reconstruct`, ([type]) => (String(type) === 'numpy.ndarray' ? new NumpyArray() : unknown(type))],
    [`${home}.numeric._frombuffer`, fromBuffer],
  ]),
];

function unknown(type: PickleValue | undefined): PickleValue {
  return new PickleObject(type as PickleObject['type'], []);
}

function isShape(value: PickleValue): value is readonly number[] {
  return isTuple(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
}

/** Where the element that is number `index` in row-major order lies in column-major order. */
function columnMajor(index: number, shape: readonly number[]): number {
  let at = 0;
  let rest = index;
  let inner = shape.reduce((n, size) => n * size, 1);
  let stride = 1;
  for (const size of shape) {
    inner /= size;
    at += Math.floor(rest / inner) * stride;
    rest %= inner;
    stride *= size;
  }
  return at;
}

function safe(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
