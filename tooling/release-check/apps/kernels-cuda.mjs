import { Device, matmul, tensor } from '@deepspeed-ts/core';
import { cudaBackend, cudaDevices, whyNoCuda } from '@deepspeed-ts/kernels-cuda';

const names = cudaDevices().map(({ name }) => name);
console.log(`GPUs: ${names.length > 0 ? names.join(', ') : `none (${whyNoCuda()})`}`);
if (names.length > 0) {
  const a = tensor(new Device(cudaBackend()), [1, 2, 3, 4], 'f32', [2, 2]);
  console.log(`[1 2; 3 4]² = ${(await matmul(a, a).read()).data.join(' ')}`);
}
