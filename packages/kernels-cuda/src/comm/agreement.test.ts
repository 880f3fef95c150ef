import { expect, test } from 'vitest';
import { Agreement } from './agreement.js';
import type { Call } from './call.js';
import { opKinds } from './native-comm.js';

const call = (count: number): Call => ({ kind: opKinds.allReduce, dtype: 0, reduce: 0, peer: -1, count, tag: '' });

test('calls are agreed upon once all ranks have made them, in whatever order they come', () => {
  const book = new Agreement(3);
  for (const sequence of [1, 2, 3]) book.add(2, sequence, call(sequence));
  for (const sequence of [1, 2]) book.add(0, sequence, call(sequence));
  expect([book.agreed, book.reached]).toEqual([0, 3]);
  expect([book.missing(1), book.missing(3), book.missing(4)]).toEqual([[1], [0, 1], [0, 1, 2]]);
  book.add(1, 1, call(1));
  expect(book.agreed).toBe(1);
  book.add(1, 2, call(2));
  expect([book.agreed, book.missing(2), book.mismatch()]).toEqual([2, [], null]);
});

test("the first call in which ranks differ is shown as every rank's", () => {
  const book = new Agreement(3);
  book.add(0, 1, call(10));
  book.add(2, 1, call(11));
  expect(book.mismatch()).toEqual({
    message:
      'ranks called different collectives: rank 0 all_reduce #1 (sum of 10 f32); rank 1 nothing yet; rank 2 all_reduce #1 (sum of 11 f32)',
    sequence: 1,
    complete: false,
  });
  book.add(1, 1, call(10));
  expect(book.mismatch()?.complete).toBe(true);
  expect(book.agreed).toBe(0);
});
