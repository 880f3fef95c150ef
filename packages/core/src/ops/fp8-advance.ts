import { hostTensor } from '../tensor/host.js';
import { columns, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { formatOf, fp8Scale } from './fp8-format.js';

/**
 * Ends a step for the states of 8-bit tensors, f32 [n, 3, 2 + history]: x, w and dy of each layer. A state is the scale in force, the
 * largest magnitude since it was set, and those of earlier steps in a ring. The magnitude goes to `place` of the ring, and the largest
 * of the ring (or only the latest) sets the next scale: delayed scaling (arXiv:2209.05433).
 */
export const fp8Advance = defineOp<{ place: number; margin: number; latest: number }>({
  name: 'fp8_advance',
  attrs: ['place', 'margin', 'latest'],
  dtypes: ['bf16'],
  infer: () => [{ shape: [1, 3, 3], dtype: 'f32' }],
  reference(_, { place, margin, latest }, [states]) {
    const length = columns(states!);
    for (let i = 0; i < rowsOf(states!); i++) {
      const state = states!.data.subarray(i * length, (i + 1) * length);
      state[2 + place] = state[1]! <= 3.4e38 ? state[1]! : 0;
      state[1] = 0;
      const most = latest ? state[2 + place]! : state.subarray(2).reduce((a, b) => Math.max(a, b), 0);
      state[0] = fp8Scale(most, formatOf(Number(i % 3 === 2)), margin, state[0]!);
    }
  },
  samples: () => {
    const states = () =>
      hostTensor(
        [2, 3, 5],
        'f32',
        [1, 3, 9, 2, 2, 4, 0, 0, 0, 0, 8, 0.25, 0, 0, 0.125, 1, 1e-6, 2e-6, 0, 0, 2, 7, 500, 1, 1, 1, 65536, 1, 1, 1],
      );
    return [
      { inputs: [], attrs: { place: 1, margin: 0, latest: 0 }, outputs: [states()] },
      { inputs: [], attrs: { place: 0, margin: 2, latest: 1 }, outputs: [states()] },
    ];
  },
});
