import { type Communicator, type Device, empty, gradNorm, launch, scope, sumSquares, type Tensor } from '@deepspeed-ts/core';
import type { UnitState } from './unit-state.js';

/** f32 [1] each: the norm of all gradients, and what to multiply gradients with. */
export interface GlobalNorm {
  readonly norm: Tensor;
  readonly coefficient: Tensor;
}

/**
 * The norm of the averaged gradients over all units and ranks, and the clipping factor, without leaving the device. The sum of
 * squares of every (rank, unit) slice is taken by itself and the slices are added rank by rank: who computed which does not show.
 * Both count gradients as multiplied by `scale`.
 */
export function globalNorm(
  units: readonly UnitState[],
  communicator: Communicator,
  device: Device,
  maxNorm: number,
  scale: number,
): GlobalNorm {
  return scope(() => {
    const { rank, size } = communicator;
    const partials = empty(device, [size * units.length], 'f32');
    for (const [u, unit] of units.entries()) {
      const whole = unit.options.stage < 2;
      for (let r = whole ? 0 : rank; r < (whole ? size : rank + 1); r++) {
        const out = partials.narrow(r * units.length + u, 1);
        const { start } = unit.layout.sliceOf(whole ? r : 0);
        launch(sumSquares, [unit.gradient!.narrow(start, unit.layout.slice)], [out], {});
      }
    }
    if ((units[0]?.options.stage ?? 0) >= 2) {
      const own = partials.narrow(rank * units.length, units.length);
      communicator.allGather(partials, own, 'gradient norm').wait();
    }
    const norm = empty(device, [1], 'f32');
    const coefficient = empty(device, [1], 'f32');
    launch(gradNorm, [partials], [norm, coefficient], { maxNorm, scale });
    return { norm, coefficient };
  });
}
