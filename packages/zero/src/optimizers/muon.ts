import { empty, fill, gradNorm, launch, muonMomentum, type Parameter, scope, sgdOp, type Tensor } from '@deepspeed-ts/core';
import type { Placement } from '../layout.js';
import type { OptimizerOptions, OptimizerStep, ParameterOptimizer } from '../optimizer.js';
import type { Trained, UnitUpdate } from '../unit-update.js';
import { adam } from './adam.js';
import { orthogonalize } from './orthogonalize.js';

export interface MuonOptions extends OptimizerOptions {
  readonly momentum: number;
  readonly nesterov: boolean;
  /** Rounds of Newton-Schulz iteration. */
  readonly nsSteps: number;
  /** Of AdamW, for parameters that are no hidden matrices. */
  readonly betas: readonly [number, number];
  readonly eps: number;
}

export interface Muon extends ParameterOptimizer<MuonOptions> {
  /** Whether a parameter is orthogonalised rather than updated by AdamW. */
  isMatrix(name: string, parameter: Parameter): boolean;
}

const MOMENTUM = 'momentum_buffer';

/**
 * Muon (Jordan et al., https://kellerjordan.github.io/posts/muon): hidden matrices move by their momentum with all singular values made
 * nearly equal; what `isHidden` leaves out (embeddings, the head, norms, biases) is updated by AdamW. A parameter of more than two axes is the
 * matrix [first, others].
 *
 * At every stage the units come one after the other: momenta are brought together, each matrix is orthogonalised by one rank, chosen so
 * that all have like work, and every rank gets its share of the results. So there is one unit of them in memory at a time, and each rank's
 * bits are those of the rank that did the work. Momenta and matrices are in f32 where weights are, else in bf16, as in Muon's reference.
 */
export function muon(isHidden: (name: string, parameter: Parameter) => boolean): Muon {
  const isMatrix = ({ name, parameter }: Pick<Placement, 'name' | 'parameter'>) => parameter.shape.length >= 2 && isHidden(name, parameter);
  return {
    name: 'muon',
    isMatrix: (name, parameter) => isMatrix({ name, parameter }),
    states: [{ name: MOMENTUM }, ...adam.stateNames.map((name) => ({ name }))],
    statesOf: (name, parameter) => (isMatrix({ name, parameter }) ? [MOMENTUM] : adam.stateNames),
    step(step) {
      scope(() => {
        const gate = gateOf(step);
        const load = new Array<number>(step.communicator.size).fill(0);
        for (const unit of step.units) {
          const matrices = unit.trained.filter(isMatrix);
          if (matrices.length > 0) scope(() => updateMatrices(unit, matrices, isMatrix, step, gate, load));
          for (const { key, start, end } of unit.segments((placement) => !isMatrix(placement))) {
            const adamOptions = { ...key, decoupled: true, biasCorrection: true };
            adam.step(unit.range(start, end, adam.stateNames, step.coefficient), adamOptions, step.t);
          }
          step.done(unit);
        }
      });
    },
  };
}

function updateMatrices(
  unit: UnitUpdate<MuonOptions>,
  matrices: readonly Trained<MuonOptions>[],
  isMatrix: (placement: Placement) => boolean,
  { communicator, device, coefficient }: OptimizerStep<MuonOptions>,
  gate: Tensor,
  load: number[],
): void {
  const dtype = unit.dtype === 'f32' ? 'f32' : 'bf16';
  const updates = empty(device, [unit.layout.padded], dtype, { kind: 'communication', shared: true });
  // What is no matrix travels along as zeros.
  fill(updates, 0);
  for (const range of unit.segments(isMatrix)) {
    const { momentum, nesterov } = range.key;
    const outputs = [unit.state(MOMENTUM, range), updates.narrow(range.start, range.end - range.start)];
    launch(muonMomentum, [unit.gradient(range), coefficient], outputs, { momentum, nesterov: Number(nesterov) });
  }
  const mine = updates.narrow(unit.layout.sliceOf(communicator.rank).start, unit.layout.slice);
  if (!unit.isWhole) communicator.allGather(updates, mine, `momenta ${unit.layout.name}`).wait();
  const owners = assign(matrices, load);
  for (const matrix of matrices) {
    const { offset, numel, parameter, options } = matrix;
    const whole = updates.narrow(offset, numel);
    // Zeros of all ranks but one leave that one's result as it is when they are added up.
    if (owners.get(matrix) !== communicator.rank) fill(whole, 0);
    else scope(() => orthogonalize(whole.view([parameter.shape[0]!, numel / parameter.shape[0]!]), options.nsSteps));
  }
  if (unit.isWhole) communicator.allReduce(updates, 'sum', `matrices ${unit.layout.name}`).wait();
  else communicator.reduceScatter(mine, updates, 'sum', `matrices ${unit.layout.name}`).wait();
  for (const { options, ...placement } of matrices) {
    const range = unit.part(placement, unit.owned);
    if (!range) continue;
    const gain = gainOf(placement);
    const attrs = { lr: options.lr * gain, momentum: 0, dampening: 0, nesterov: 0, weightDecay: options.weightDecay / gain };
    launch(sgdOp, [updates.narrow(range.start, range.end - range.start), gate], unit.weights(range), attrs);
  }
}

/** Tall matrices move more, as in Muon's reference: sqrt(rows / columns). */
function gainOf({ parameter, numel }: Placement): number {
  const rows = parameter.shape[0]!;
  return Math.sqrt(Math.max(1, (rows * rows) / numel));
}

/** Who orthogonalises what: the most work goes to who has least so far. The same on every rank. */
function assign(matrices: readonly Trained<MuonOptions>[], load: number[]): Map<Placement, number> {
  const work = ({ parameter: { shape }, numel }: Placement) => numel * Math.min(shape[0]!, numel / shape[0]!);
  const owners = new Map<Placement, number>();
  for (const matrix of [...matrices].sort((a, b) => work(b) - work(a))) {
    const rank = load.indexOf(Math.min(...load));
    load[rank]! += work(matrix);
    owners.set(matrix, rank);
  }
  return owners;
}

/** f32 [1]: 1, or NaN where the step is to change nothing. Orthogonal matrices have no use for the size of gradients. */
function gateOf({ device, coefficient }: OptimizerStep<MuonOptions>): Tensor {
  const gate = empty(device, [1], 'f32');
  launch(gradNorm, [coefficient], [empty(device, [1], 'f32'), gate], { maxNorm: 0, scale: 1 });
  return gate;
}
