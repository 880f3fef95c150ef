import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { generation } from './generation.js';

generation('cpu', () => cpuBackend());
