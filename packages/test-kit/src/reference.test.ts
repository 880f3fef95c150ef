import { ReferenceBackend } from '@deepspeed-ts/core';
import { gradientContract, opContract } from './op-contract.js';

opContract('reference', () => new ReferenceBackend());
gradientContract();
