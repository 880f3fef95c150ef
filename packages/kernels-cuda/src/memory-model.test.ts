import { type FloatDType, NativeKernels, ops } from '@deepspeed-ts/core';
import { expect, test } from 'vitest';
import { NativeLoadError } from './errors.js';
import { loadNative } from './load.js';
import { cudaMemoryModel } from './memory-model.js';

const FLOATS: readonly FloatDType[] = ['f32', 'bf16', 'f16'];

/** Core makes other tensors where there is no kernel of these. Of any other op the reference runs, on the tensors that a kernel would get. */
const deciding = ops.filter(({ name, compose }) => compose || name === 'linear_cross_entropy_fused');

test.skipIf(notBuilt())('the memory model knows which kernels there are', () => {
  const kernels = new NativeKernels('cuda', loadNative());
  const model = cudaMemoryModel();
  const differing = deciding.flatMap(({ name, dtypes = FLOATS }) =>
    dtypes.filter((dtype) => model.supports(name, [dtype]) !== kernels.supports(name, [dtype])).map((dtype) => `${name} in ${dtype}`),
  );
  expect(differing).toEqual([]);
});

/** Where there is no CUDA compiler the addon is left out. */
function notBuilt(): boolean {
  try {
    loadNative();
    return false;
  } catch (error) {
    if (!(error instanceof NativeLoadError)) throw error;
    console.warn('skipped: the CUDA addon is not built');
    return true;
  }
}
