import type { DType } from '../dtype.js';
import { bytesOf } from '../dtype.js';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from './half.js';

/**
 * A tensor in JavaScript memory, in double precision whatever its dtype: what references compute on and what `read()` gives.
 * i64 is exact up to 2^53.
 */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly data: Float64Array;
}

export function hostTensor(shape: readonly number[], dtype: DType, values?: ArrayLike<number>): HostTensor {
  const n = shape.reduce((a, b) => a * b, 1);
  const data = new Float64Array(n);
  if (values) {
    if (values.length !== n)
      throw new RangeError(`[hostTensor] expected ${n} values for shape [${shape.join(', ')}], got ${values.length}`);
    data.set(values);
  }
  return { shape, dtype, data };
}

/** Rounds to the dtype (nearest even) and lays the bytes out as devices hold them. */
export function encode(host: HostTensor): Uint8Array {
  const { data, dtype } = host;
  const n = data.length;
  switch (dtype) {
    case 'f32':
      return bytes(Float32Array.from(data));
    case 'i32':
      return bytes(Int32Array.from(data));
    case 'i8':
      return bytes(Int8Array.from(data));
    case 'u8':
      return Uint8Array.from(data);
    case 'bool':
      return Uint8Array.from(data, (x) => (x === 0 ? 0 : 1));
    case 'i64': {
      const out = new BigInt64Array(n);
      for (let i = 0; i < n; i++) out[i] = BigInt(data[i]!);
      return bytes(out);
    }
    case 'bf16':
    case 'f16': {
      const convert = dtype === 'bf16' ? f32ToBf16 : f32ToF16;
      const out = new Uint16Array(n);
      for (let i = 0; i < n; i++) out[i] = convert(data[i]!);
      return bytes(out);
    }
  }
}

export function decode(raw: Uint8Array, shape: readonly number[], dtype: DType): HostTensor {
  // A copy, so that the typed arrays below are aligned.
  const aligned = raw.byteOffset % bytesOf(dtype) === 0 ? raw : raw.slice();
  const n = aligned.byteLength / bytesOf(dtype);
  const at = [aligned.buffer, aligned.byteOffset, n] as const;
  switch (dtype) {
    case 'f32':
      return { shape, dtype, data: Float64Array.from(new Float32Array(...at)) };
    case 'i32':
      return { shape, dtype, data: Float64Array.from(new Int32Array(...at)) };
    case 'i8':
      return { shape, dtype, data: Float64Array.from(new Int8Array(...at)) };
    case 'u8':
    case 'bool':
      return { shape, dtype, data: Float64Array.from(aligned) };
    case 'i64':
      return { shape, dtype, data: Float64Array.from(new BigInt64Array(...at), Number) };
    case 'bf16':
    case 'f16': {
      const convert = dtype === 'bf16' ? bf16ToF32 : f16ToF32;
      return { shape, dtype, data: Float64Array.from(new Uint16Array(...at), convert) };
    }
  }
}

/** The values that remain after storing in the dtype. */
export function rounded(host: HostTensor): HostTensor {
  return decode(encode(host), host.shape, host.dtype);
}

function bytes(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
