import type { DType } from '../dtype.js';
import { bytesOf } from '../dtype.js';
import { ShapeError } from '../errors.js';
import type { Device, MemoryKind } from './device.js';
import { encode, type HostTensor, hostTensor } from './host.js';
import { numelOf, type Shape, Tensor } from './tensor.js';

export interface CreateOptions {
  /** What the memory counts as; default 'activations'. */
  readonly kind?: MemoryKind;
  /** Reachable by peer ranks without a copy. */
  readonly shared?: boolean;
  /** In memory of the host; see `AllocateOptions`. */
  readonly host?: boolean;
}

/** Uninitialised. */
export function empty(device: Device, shape: Shape, dtype: DType, options: CreateOptions = {}): Tensor {
  const { kind = 'activations', shared = false, host = false } = options;
  return new Tensor(device.allocate(numelOf(shape) * bytesOf(dtype), kind, { shared, host }), shape, dtype);
}

export function full(device: Device, shape: Shape, dtype: DType, value: number, options?: CreateOptions): Tensor {
  const tensor = empty(device, shape, dtype, options);
  fill(tensor, value);
  return tensor;
}

export function zeros(device: Device, shape: Shape, dtype: DType, options?: CreateOptions): Tensor {
  return full(device, shape, dtype, 0, options);
}

/** Sets every element, in stream order. */
export function fill(tensor: Tensor, value: number): void {
  const { backend } = tensor.device;
  if (tensor.numel === 0) return;
  if (backend.supports('fill', [])) backend.launch('fill', [], [tensor], [value]);
  else write(tensor, hostTensor(tensor.shape, tensor.dtype, new Float64Array(tensor.numel).fill(value)));
}

/** Host values, rounded to the dtype. `shape` defaults to one axis. */
export function tensor(
  device: Device,
  values: ArrayLike<number>,
  dtype: DType,
  shape: Shape = [values.length],
  options?: CreateOptions,
): Tensor {
  return fromHost(device, hostTensor(shape, dtype, values), options);
}

export function fromHost(device: Device, host: HostTensor, options?: CreateOptions): Tensor {
  const result = empty(device, host.shape, host.dtype, options);
  write(result, host);
  return result;
}

/** A tensor of i32 or f32 from an array that holds its elements already: the bytes go to the device as they are. */
export function fromArray(device: Device, data: Int32Array | Float32Array, shape: Shape, options?: CreateOptions): Tensor {
  if (!(data instanceof Int32Array || data instanceof Float32Array))
    throw new ShapeError('fromArray', 'an Int32Array or a Float32Array', Object.prototype.toString.call(data).slice(8, -1));
  if (data.length !== numelOf(shape))
    throw new ShapeError('fromArray', `${numelOf(shape)} values for shape [${shape.join(', ')}]`, `${data.length}`);
  const result = empty(device, shape, data instanceof Int32Array ? 'i32' : 'f32', options);
  device.backend.write(result.handle, result.byteOffset, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return result;
}

/** Overwrites the elements, in stream order. */
export function write(target: Tensor, host: HostTensor): void {
  target.assertAlive();
  target.device.backend.write(target.handle, target.byteOffset, encode({ ...host, dtype: target.dtype }));
}
