import type { DType } from '../dtype.js';

/**
 * The safetensors format: 8 bytes of header length (little endian), a JSON header {name: {dtype, shape, data_offsets}}, then the
 * tensors' bytes without gaps. See https://huggingface.co/docs/safetensors.
 */
export const dtypeNames = {
  f32: 'F32',
  f16: 'F16',
  bf16: 'BF16',
  i32: 'I32',
  i64: 'I64',
  u8: 'U8',
  bool: 'BOOL',
  i8: 'I8',
} as const satisfies Record<DType, string>;

export interface TensorEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Of the data part, from the first byte after the header. */
  readonly data_offsets: readonly [number, number];
}

/** Headers are padded to this, so that tensors are aligned when the file is mapped. */
export const HEADER_ALIGNMENT = 8;

/** Refuses headers beyond this before allocating: the reference implementation's limit. */
export const MAX_HEADER_BYTES = 100_000_000;

export function dtypeOf(name: string): DType | undefined {
  return (Object.keys(dtypeNames) as DType[]).find((dtype) => dtypeNames[dtype] === name);
}
