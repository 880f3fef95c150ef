import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { describe } from 'vitest';
import { opContract } from '../op-contract.js';
import { gpus } from './devices.js';

describe.skipIf(gpus() === 0)('on a GPU', () => {
  opContract('cuda', () => cudaBackend());
});
