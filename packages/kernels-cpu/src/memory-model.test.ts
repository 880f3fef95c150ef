import { type FloatDType, NativeKernels, ops } from '@deepspeed-ts/core';
import { expect, test } from 'vitest';
import { loadNative } from './load.js';
import { cpuMemoryModel } from './memory-model.js';

const FLOATS: readonly FloatDType[] = ['f32', 'bf16', 'f16'];

/** Core makes other tensors where there is no kernel of these. Of any other op the reference runs, on the tensors that a kernel would get. */
const deciding = ops.filter(({ name, compose }) => compose || name === 'linear_cross_entropy_fused');

test('the memory model knows which kernels there are', () => {
  const kernels = new NativeKernels('cpu', loadNative());
  const model = cpuMemoryModel();
  const differing = deciding.flatMap(({ name, dtypes = FLOATS }) =>
    dtypes.filter((dtype) => model.supports(name, [dtype]) !== kernels.supports(name, [dtype])).map((dtype) => `${name} in ${dtype}`),
  );
  expect(differing).toEqual([]);
});
