import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { opContract } from './op-contract.js';

opContract('cpu', () => cpuBackend());
