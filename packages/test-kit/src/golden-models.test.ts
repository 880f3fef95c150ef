import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { goldenModels } from './golden-models.js';

goldenModels('cpu', () => cpuBackend());
