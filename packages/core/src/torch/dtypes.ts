import type { DType } from '../dtype.js';
import { decode, type HostTensor } from '../tensor/host.js';

/** Element types of PyTorch, under our names where we have them. */
export type TorchDType = DType | 'f64' | 'i16' | 'u16' | 'u32' | 'u64' | 'c64' | 'c128' | 'f8e4m3' | 'f8e5m2';

interface TorchDTypeInfo {
  readonly bytes: number;
  /** As `torch.<name>`. */
  readonly torch: string;
  /** Of storages, where there is a class for them. */
  readonly storage?: string;
  /** Values on the host; without it only the bytes can be had. What we have no dtype for comes in one that holds its values. */
  decode?(bytes: Uint8Array, shape: readonly number[]): HostTensor;
}

const own = (dtype: DType, bytes: number, torch: string, storage: string): TorchDTypeInfo => ({
  bytes,
  torch,
  storage,
  decode: (raw, shape) => decode(raw, shape, dtype),
});

const viewed =
  (dtype: DType, width: number, read: (view: DataView, at: number) => number) =>
  (bytes: Uint8Array, shape: readonly number[]): HostTensor => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return { shape, dtype, data: Float64Array.from({ length: bytes.byteLength / width }, (_, i) => read(view, i * width)) };
  };

export const torchDTypes: Readonly<Record<TorchDType, TorchDTypeInfo>> = {
  f32: own('f32', 4, 'float32', 'FloatStorage'),
  f16: own('f16', 2, 'float16', 'HalfStorage'),
  bf16: own('bf16', 2, 'bfloat16', 'BFloat16Storage'),
  i32: own('i32', 4, 'int32', 'IntStorage'),
  i64: own('i64', 8, 'int64', 'LongStorage'),
  u8: own('u8', 1, 'uint8', 'ByteStorage'),
  i8: own('i8', 1, 'int8', 'CharStorage'),
  bool: own('bool', 1, 'bool', 'BoolStorage'),
  f64: { bytes: 8, torch: 'float64', storage: 'DoubleStorage', decode: viewed('f32', 8, (view, at) => view.getFloat64(at, true)) },
  i16: { bytes: 2, torch: 'int16', storage: 'ShortStorage', decode: viewed('i32', 2, (view, at) => view.getInt16(at, true)) },
  u16: { bytes: 2, torch: 'uint16', decode: viewed('i32', 2, (view, at) => view.getUint16(at, true)) },
  u32: { bytes: 4, torch: 'uint32', decode: viewed('i64', 4, (view, at) => view.getUint32(at, true)) },
  u64: { bytes: 8, torch: 'uint64', decode: viewed('i64', 8, (view, at) => Number(view.getBigUint64(at, true))) },
  f8e4m3: { bytes: 1, torch: 'float8_e4m3fn', decode: viewed('f32', 1, (view, at) => float8(view.getUint8(at), 3, 7, false)) },
  f8e5m2: { bytes: 1, torch: 'float8_e5m2', decode: viewed('f32', 1, (view, at) => float8(view.getUint8(at), 2, 15, true)) },
  c64: { bytes: 8, torch: 'complex64', storage: 'ComplexFloatStorage' },
  c128: { bytes: 16, torch: 'complex128', storage: 'ComplexDoubleStorage' },
};

const entries = Object.entries(torchDTypes) as [TorchDType, TorchDTypeInfo][];
const byTorchName = new Map(entries.map(([dtype, { torch }]) => [torch, dtype]));
const byStorage = new Map(entries.flatMap(([dtype, { storage }]) => (storage ? [[storage, dtype] as const] : [])));

export const dtypeOfTorch = (name: string): TorchDType | undefined => byTorchName.get(name);

/** Of the elements of a storage, by its class: `undefined` for one whose tensors bring theirs, null for what we don't know. */
export const dtypeOfStorage = (name: string): TorchDType | undefined | null =>
  name === 'UntypedStorage' ? undefined : (byStorage.get(name) ?? null);

/** Bytes of a storage of so many elements. */
export const bytesOfStorage = (dtype: TorchDType | undefined, numel: number): number => numel * (dtype ? torchDTypes[dtype].bytes : 1);

/** OCP 8-bit floats (arXiv:2209.05433): with infinities as IEEE has them, or without and one NaN in their place. */
function float8(bits: number, mantissaBits: number, bias: number, infinities: boolean): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits & 0x7f) >> mantissaBits;
  const mantissa = bits & ((1 << mantissaBits) - 1);
  const largest = 0x7f >> mantissaBits;
  if (infinities && exponent === largest) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (!infinities && (bits & 0x7f) === 0x7f) return Number.NaN;
  const fraction = mantissa / (1 << mantissaBits);
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}
