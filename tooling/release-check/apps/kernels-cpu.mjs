import { Device, matmul, openBackend, tensor } from '@deepspeed-ts/core';
import { cpuBackend } from '@deepspeed-ts/kernels-cpu';

const backend = cpuBackend();
const device = new Device(backend);
const a = tensor(device, [1, 2, 3, 4], 'f32', [2, 2]);
console.log(`[1 2; 3 4]² = ${(await matmul(a, a).read()).data.join(' ')} with instruction set ${backend.instructionSet}`);
console.log(`backend opened by default: ${openBackend().name}`);
