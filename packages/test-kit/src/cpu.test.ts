import { cpuBackend } from '@deepspeed-ts/kernels-cpu';
import { opContract } from './op-contract.js';

const reason = 'the CPU computes logits a block at a time, and gains nothing from keeping gradients of the forward pass';

opContract('cpu', () => cpuBackend(), {
  gaps: ['linear_cross_entropy_fused', 'linear_cross_entropy_fused_backward'].map((op) => ({ op, reason })),
});
