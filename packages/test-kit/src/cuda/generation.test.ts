import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { describe } from 'vitest';
import { generation } from '../generation.js';
import { generationInTraining } from '../zero/generation-contract.js';
import { gpus } from './devices.js';

describe.skipIf(gpus() === 0)('on a GPU', () => {
  generation('cuda', () => cudaBackend());
});

describe.skipIf(gpus(2) < 2)('on two GPUs', () => {
  generationInTraining('cuda');
});
