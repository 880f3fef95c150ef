import type { GradNode } from '../autograd/node.js';
import type { View } from '../backend/backend.js';
import { bytesOf, type DType } from '../dtype.js';
import { DisposedError, ShapeError } from '../errors.js';
import type { Buffer, Device } from './device.js';
import { decode, type HostTensor } from './host.js';
import { Scoped, track, untrack } from './scope.js';

export type Shape = readonly number[];

/** Shape and dtype without storage: what an op's `infer` works on. */
export interface TensorSpec {
  readonly shape: Shape;
  readonly dtype: DType;
}

export function numelOf(shape: Shape): number {
  let n = 1;
  for (const size of shape) n *= size;
  return n;
}

/**
 * Shape and dtype over a counted buffer: contiguous, row-major. `view` and `narrow` share storage. A tensor owns one count of
 * its buffer (and of the autograd node that made it) until `dispose()`; inside a `scope` or a module call that is automatic.
 */
export class Tensor extends Scoped implements TensorSpec, View {
  /** The autograd node that made this tensor, and which of its outputs this is. */
  node: GradNode | null = null;
  nodeOutput = 0;
  readonly handle: number;
  #alive = true;

  /** Takes over one count of `buffer`. */
  constructor(
    readonly buffer: Buffer,
    readonly shape: Shape,
    readonly dtype: DType,
    readonly byteOffset = 0,
  ) {
    super();
    this.handle = buffer.handle;
    track(this);
  }

  get device(): Device {
    return this.buffer.device;
  }

  get numel(): number {
    return numelOf(this.shape);
  }

  get byteLength(): number {
    return this.numel * bytesOf(this.dtype);
  }

  get isDisposed(): boolean {
    return !this.#alive;
  }

  /** A second owner of the same storage, outside every scope and without gradient history. */
  retain(): Tensor {
    this.assertAlive();
    const copy = new Tensor(this.buffer.retain(), this.shape, this.dtype, this.byteOffset);
    untrack(copy);
    return copy;
  }

  /** Takes this tensor out of its scope: whoever calls this disposes it. */
  keep(): this {
    untrack(this);
    return this;
  }

  /** The same elements under another shape. Gradients flow through. */
  view(shape: Shape): Tensor {
    this.assertAlive();
    const sizes = inferSize(this, shape);
    const result = new Tensor(this.buffer.retain(), sizes, this.dtype, this.byteOffset);
    if (this.node) {
      result.node = this.node.retain();
      result.nodeOutput = this.nodeOutput;
    }
    return result;
  }

  /** Rows `start` to `start + length` of the first axis. Shares storage; has no gradient history. */
  narrow(start: number, length: number): Tensor {
    this.assertAlive();
    const [rows = 0, ...rest] = this.shape;
    if (this.shape.length === 0 || start < 0 || length < 0 || start + length > rows) {
      throw new ShapeError('narrow', `rows within 0..${rows}`, `${start}..${start + length} of [${this.shape.join(', ')}]`);
    }
    const offset = this.byteOffset + start * numelOf(rest) * bytesOf(this.dtype);
    return new Tensor(this.buffer.retain(), [length, ...rest], this.dtype, offset);
  }

  /** The elements, once everything queued before has run. */
  async read(): Promise<HostTensor> {
    this.assertAlive();
    const bytes = await this.device.backend.read(this.handle, this.byteOffset, this.byteLength);
    return decode(bytes, this.shape, this.dtype);
  }

  /** As `read`, blocking the thread. */
  readSync(): HostTensor {
    this.assertAlive();
    return decode(this.device.backend.readSync(this.handle, this.byteOffset, this.byteLength), this.shape, this.dtype);
  }

  /** The one element of a scalar. */
  async item(): Promise<number> {
    if (this.numel !== 1) throw new ShapeError('item', 'one element', `[${this.shape.join(', ')}]`);
    return (await this.read()).data[0]!;
  }

  override dispose(): void {
    if (!this.#alive) return;
    this.#alive = false;
    untrack(this);
    this.buffer.release();
    this.node?.release();
    this.node = null;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  assertAlive(): void {
    if (!this.#alive) throw new DisposedError(`tensor ${describe(this)}`);
  }
}

export function describe(spec: TensorSpec): string {
  return `${spec.dtype}[${spec.shape.join(', ')}]`;
}

/** Resolves one -1 and checks that the count of elements stays. */
function inferSize(tensor: Tensor, shape: Shape): Shape {
  const known = shape.reduce((n, size) => (size === -1 ? n : n * size), 1);
  const sizes = shape.map((size) => (size === -1 ? tensor.numel / known : size));
  if (numelOf(sizes) !== tensor.numel || sizes.some((size) => !Number.isInteger(size))) {
    throw new ShapeError('view', `a shape of ${tensor.numel} elements`, `[${shape.join(', ')}] for ${describe(tensor)}`);
  }
  return sizes;
}
