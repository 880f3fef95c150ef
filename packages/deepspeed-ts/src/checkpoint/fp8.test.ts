import { hostTensor } from '@deepspeed-ts/core';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { loadFp8, saveFp8 } from './fp8.js';

test('the state of 8-bit training comes back from JSON to the bit', () => {
  fc.assert(
    fc.property(
      fc.nat(1000),
      fc.dictionary(fc.string(), fc.array(fc.float({ noNaN: true }), { minLength: 3, maxLength: 3 })),
      (steps, layers) => {
        const state = { steps, layers: new Map(Object.entries(layers).map(([name, row]) => [name, hostTensor([3, 1], 'f32', row)])) };
        expect(loadFp8(JSON.parse(JSON.stringify(saveFp8(state))))).toEqual(state);
      },
    ),
  );
});
