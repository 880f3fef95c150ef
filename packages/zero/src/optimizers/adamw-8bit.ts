import { adamw8bitOp, CODE_BLOCK, launch, type Parameter } from '@deepspeed-ts/core';
import type { ParameterOptimizer } from '../optimizer.js';
import { type AdamOptions, adam } from './adam.js';

const first = { codes: 'exp_avg_8bit', scales: 'exp_avg_scale' };
const second = { codes: 'exp_avg_sq_8bit', scales: 'exp_avg_sq_scale' };
const coded = [first.codes, first.scales, second.codes, second.scales];

/**
 * Adam and AdamW with both moments in 8 bits (Dettmers et al., arXiv:2110.02861), of parameters that `inEightBits` accepts; those of others
 * stay whole. Blocks of 256 elements of a parameter share a scale: parameters begin at multiples of 256 in memory, and so do
 * slices of ranks, so that no block is ever cut.
 */
export function adamw8bit(inEightBits: (name: string, parameter: Parameter) => boolean): ParameterOptimizer<AdamOptions> {
  return {
    name: 'adamw8bit',
    alignment: CODE_BLOCK,
    states: [
      ...adam.stateNames.map((name) => ({ name })),
      { name: first.codes, dtype: 'u8', codes: { of: adam.stateNames[0]!, scales: first.scales, signed: true } },
      { name: first.scales, dtype: 'f32', every: CODE_BLOCK },
      { name: second.codes, dtype: 'u8', codes: { of: adam.stateNames[1]!, scales: second.scales, signed: false } },
      { name: second.scales, dtype: 'f32', every: CODE_BLOCK },
    ],
    statesOf: (name, parameter) => (inEightBits(name, parameter) ? coded : adam.stateNames),
    step({ units, coefficient, t, done }) {
      for (const unit of units) {
        for (const { key, start, end } of unit.segments(({ name, parameter }) => !inEightBits(name, parameter))) {
          adam.step(unit.range(start, end, adam.stateNames, coefficient), key, t);
        }
        for (const range of unit.segments(({ name, parameter }) => inEightBits(name, parameter))) {
          const { lr, betas, eps, weightDecay, decoupled, biasCorrection } = range.key;
          const [beta1, beta2] = betas;
          const [master, ...low] = unit.weights(range);
          const states = coded.map((name) => unit.state(name, range));
          launch(adamw8bitOp, [unit.gradient(range), coefficient], [master!, ...states, ...low], {
            lr,
            beta1,
            beta2,
            eps,
            weightDecay,
            bias1: biasCorrection ? 1 - beta1 ** t : 1,
            bias2: biasCorrection ? 1 - beta2 ** t : 1,
            decoupled: Number(decoupled),
          });
        }
        done(unit);
      }
    },
  };
}
