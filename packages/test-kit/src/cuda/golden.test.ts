import { cudaBackend } from '@deepspeed-ts/kernels-cuda';
import { describe } from 'vitest';
import { goldenDeepSpeed } from '../golden-deepspeed.js';
import { goldenMixtral } from '../golden-mixtral.js';
import { goldenModels } from '../golden-models.js';
import { goldenLora } from '../peft/golden-lora.js';
import { gpus } from './devices.js';

describe.skipIf(gpus() === 0)('on a GPU', () => {
  goldenModels('cuda', () => cudaBackend());
  goldenLora('cuda', () => cudaBackend());
  goldenMixtral('cuda', () => cudaBackend());
});

describe.skipIf(gpus(2) < 2)('on two GPUs', () => {
  goldenDeepSpeed('cuda');
});
