import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { goldenMixtral } from './golden-mixtral.js';

goldenMixtral('cpu', () => cpuBackend());
