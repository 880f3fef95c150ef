import { columns, expect, expectFloat, rowsOf } from './check.js';
import { defineOp } from './define-op.js';
import { routedSample } from './route.js';

/**
 * y [N, C]: of each token the sum of its k rows of x [N k, C], which lie by sorted place (see `Routing`): those at place[token * k + j], added in
 * order of j. Inputs x and place.
 */
export const combine = defineOp<{ k: number }>({
  name: 'combine',
  attrs: ['k'],
  infer([x, place], { k }) {
    expectFloat('combine', 'x', x!);
    expect(place!.dtype === 'i32' && columns(place!) === rowsOf(x!), 'combine', `places i32 of ${rowsOf(x!)} rows`, place!);
    return [{ shape: [rowsOf(x!) / k, columns(x!)], dtype: x!.dtype }];
  },
  reference([x, place], { k }, [y]) {
    const size = columns(y!);
    for (let token = 0; token < rowsOf(y!); token++) {
      for (let i = 0; i < size; i++) {
        let sum = 0;
        for (let j = 0; j < k; j++) sum += x!.data[place!.data[token * k + j]! * size + i]!;
        y!.data[token * size + i] = sum;
      }
    }
  },
  samples: (r) =>
    [
      [5, 2, 7],
      [33, 3, 264],
      [300, 1, 65],
      [2, 2, 4096],
    ].map(([tokens, k, size]) => ({
      inputs: [r.randn(tokens! * k!, size!), routedSample(r, tokens!, 4, k!).place],
      attrs: { k: k! },
    })),
});
