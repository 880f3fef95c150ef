import {
  type Communicator,
  empty,
  fill,
  lambMoments,
  lambRatio,
  lambUpdate,
  launch,
  scope,
  sgdOp,
  sumSquares,
  type Tensor,
} from '@deepspeed-ts/core';
import type { Range } from '../layout.js';
import type { OptimizerOptions, OptimizerStep, ParameterOptimizer } from '../optimizer.js';
import type { UnitUpdate } from '../unit-update.js';

export interface LambOptions extends OptimizerOptions {
  readonly betas: readonly [number, number];
  readonly eps: number;
  /** Adds eps to the second moment instead of to its root. */
  readonly epsInsideRoot: boolean;
  readonly biasCorrection: boolean;
  /** Bounds of the trust ratio; the same for all parameters. */
  readonly minCoeff: number;
  readonly maxCoeff: number;
}

const FIRST = 'exp_avg';
const SECOND = 'exp_avg_sq';

/**
 * LAMB (You et al., arXiv:1904.00962): Adam whose step is scaled for each parameter by the norm of its weights over that of its update.
 * The sums of squares are taken of each (rank, parameter) part by itself and added rank by rank, so that slices and wholes give the
 * same bits; ranks exchange them once a step.
 */
export const lamb: ParameterOptimizer<LambOptions> = {
  name: 'lamb',
  states: [{ name: FIRST }, { name: SECOND }],
  step(step) {
    for (const unit of step.units) updateMoments(unit, step);
    const ratios = trustRatios(step);
    let parameter = 0;
    for (const unit of step.units) {
      for (const trained of unit.trained) {
        const ratio = ratios.narrow(parameter++, 1);
        const range = unit.part(trained, unit.owned);
        if (range) scope(() => apply(unit, range, trained.options, step.t, ratio));
      }
      step.done(unit);
    }
    ratios.dispose();
  },
};

function updateMoments(unit: UnitUpdate<LambOptions>, { coefficient }: OptimizerStep<LambOptions>): void {
  for (const range of unit.segments()) {
    const [beta1, beta2] = range.key.betas;
    const moments = [unit.state(FIRST, range), unit.state(SECOND, range)];
    launch(lambMoments, [unit.gradient(range), coefficient], moments, { beta1, beta2 });
  }
}

/** f32 [parameters], over all units. NaN where the step is to change nothing. */
function trustRatios({ units, communicator, device, coefficient, t }: OptimizerStep<LambOptions>): Tensor {
  return scope(() => {
    const { rank, size } = communicator;
    const parameters = units.reduce((sum, { trained }) => sum + trained.length, 0);
    const sums = empty(device, [size * parameters * 2], 'f32');
    fill(sums, 0);
    let parameter = 0;
    for (const unit of units) {
      for (const trained of unit.trained) {
        for (const part of unit.slices(rank, size)) {
          const range = unit.part(trained, part.slice);
          const at = 2 * (part.rank * parameters + parameter);
          if (range) scope(() => sumParts(unit, range, trained.options, t, sums.narrow(at, 2)));
        }
        parameter++;
      }
    }
    if (units.some(({ isWhole }) => !isWhole)) exchange(communicator, sums);
    const { minCoeff: minimum, maxCoeff: maximum } = units[0]!.trained[0]!.options;
    const ratios = empty(device, [parameters], 'f32');
    launch(lambRatio, [sums.view([size, parameters, 2]), coefficient], [ratios], { minimum, maximum });
    return ratios;
  });
}

function exchange(communicator: Communicator, sums: Tensor): void {
  const mine = sums.numel / communicator.size;
  communicator.allGather(sums, sums.narrow(communicator.rank * mine, mine), 'norms of LAMB').wait();
}

/** The squares of weights and update of a part of a parameter: f32 [2]. */
function sumParts(unit: UnitUpdate<LambOptions>, range: Range, options: LambOptions, t: number, sums: Tensor): void {
  launch(sumSquares, [unit.master(range)], [sums.narrow(0, 1)], {});
  launch(sumSquares, [updateOf(unit, range, options, t)], [sums.narrow(1, 1)], {});
}

function apply(unit: UnitUpdate<LambOptions>, range: Range, options: LambOptions, t: number, ratio: Tensor): void {
  const attrs = { lr: options.lr, momentum: 0, dampening: 0, nesterov: 0, weightDecay: 0 };
  launch(sgdOp, [updateOf(unit, range, options, t), ratio], unit.weights(range), attrs);
}

/** Computed twice rather than kept: between the two, ranks exchange the norms of all parameters. */
function updateOf(unit: UnitUpdate<LambOptions>, range: Range, options: LambOptions, t: number): Tensor {
  const { betas, eps, epsInsideRoot, biasCorrection, weightDecay } = options;
  const inputs = [unit.master(range), unit.state(FIRST, range), unit.state(SECOND, range)];
  const update = empty(inputs[0]!.device, [range.end - range.start], 'f32');
  launch(lambUpdate, inputs, [update], {
    bias1: biasCorrection ? 1 - betas[0] ** t : 1,
    bias2: biasCorrection ? 1 - betas[1] ** t : 1,
    eps,
    epsInsideRoot: Number(epsInsideRoot),
    weightDecay,
  });
  return update;
}
