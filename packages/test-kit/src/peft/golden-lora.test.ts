import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { goldenLora } from './golden-lora.js';

goldenLora('cpu', cpuBackend);
