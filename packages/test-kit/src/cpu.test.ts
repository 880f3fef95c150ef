import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { opContract } from './op-contract.js';

const eightBits = ['fp8_advance', 'fp8_cast', 'fp8_matmul', 'fp8_swiglu', 'fp8_swiglu_backward'];
const reason = 'the CPU computes logits a block at a time, and gains nothing from keeping gradients of the forward pass';

opContract('cpu', () => cpuBackend(), {
  gaps: [
    ...['linear_cross_entropy_fused', 'linear_cross_entropy_fused_backward'].map((op) => ({ op, reason })),
    ...eightBits.map((op) => ({ op, reason: 'CPUs have no 8-bit floats' })),
  ],
});
