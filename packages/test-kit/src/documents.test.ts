import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { packedDocuments } from './documents.js';

packedDocuments('the CPU', () => cpuBackend());
