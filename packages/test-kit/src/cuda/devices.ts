import { cudaDevices } from '@deepspeed-ts/kernels-cuda';

/** How many GPUs tests may use here; what is missing is said once, so that a skipped test has its reason in the output. */
export function gpus(wanted = 1): number {
  const found = cudaDevices().length;
  if (found < wanted) console.warn(`skipped: ${wanted} GPU${wanted > 1 ? 's' : ''} wanted, ${found} found`);
  return found;
}
