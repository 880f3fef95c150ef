/** Element types. `code` is shared with the native backends (kernel.h). */
export const dtypes = {
  f32: { code: 0, bytes: 4, float: true },
  f16: { code: 1, bytes: 2, float: true },
  bf16: { code: 2, bytes: 2, float: true },
  i32: { code: 3, bytes: 4, float: false },
  i64: { code: 4, bytes: 8, float: false },
  u8: { code: 5, bytes: 1, float: false },
  bool: { code: 6, bytes: 1, float: false },
  i8: { code: 7, bytes: 1, float: false },
} as const;

export type DType = keyof typeof dtypes;

/** The dtypes that gradients can flow through. */
export type FloatDType = 'f32' | 'f16' | 'bf16';

export function isFloat(dtype: DType): dtype is FloatDType {
  return dtypes[dtype].float;
}

export function bytesOf(dtype: DType): number {
  return dtypes[dtype].bytes;
}
