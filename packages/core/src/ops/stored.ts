import type { DType } from '../dtype.js';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from '../tensor/half.js';

/**
 * What is left of a value that an op stores in 16 bits and goes on with, as kernels do. f32 is left alone: references are doubles,
 * and finite differences of them need to be smooth.
 */
export function stored(value: number, dtype: DType): number {
  if (dtype === 'bf16') return bf16ToF32(f32ToBf16(value));
  if (dtype === 'f16') return f16ToF32(f32ToF16(value));
  return value;
}
