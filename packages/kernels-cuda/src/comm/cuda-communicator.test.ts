import { communicatorContract } from '@deepspeed-ts/test-kit';
import { test } from 'vitest';
import { cudaDevices, whyNoCuda } from '../index.js';

const gpus = cudaDevices().length;
const common = {
  open: new URL('./open-rank.ts', import.meta.url),
  silenceVariable: 'DEEPSPEED_TS_COMM_TIMEOUT',
  foreignDescriptors: true,
  dropsNaNs: true,
};

if (gpus < 2) test.skip(`NCCL needs two GPUs; here: ${whyNoCuda() ?? gpus}`);
else communicatorContract('NCCL', { ...common, sizes: [2], failureSize: 2 });
