import { hostTensor } from '../tensor/host.js';
import { defineOp } from './define-op.js';

/** Sets every element of an existing tensor. */
export const fillOp = defineOp<{ value: number }>({
  name: 'fill',
  attrs: ['value'],
  infer: () => [],
  reference(_, { value }, [y]) {
    y!.data.fill(value);
  },
  samples: () => [{ inputs: [], attrs: { value: 1.5 }, outputs: [hostTensor([129], 'f32')] }],
});
