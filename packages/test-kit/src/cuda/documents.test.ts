import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { describe } from 'vitest';
import { packedDocuments } from '../documents.js';
import { gpus } from './devices.js';

describe.skipIf(gpus() === 0)('with a GPU', () => {
  packedDocuments('a GPU', () => cudaBackend());
});
