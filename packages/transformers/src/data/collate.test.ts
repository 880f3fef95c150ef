import { expect, it } from 'vitest';
import { padCollator } from './collate.js';

it('pads rows on the right with a token that is never looked at, and labels that count for nothing', () => {
  const batch = padCollator({ padTokenId: 9 })([
    { inputIds: [1, 2, 3], labels: [2, 3, -100] },
    { inputIds: Int32Array.of(4), labels: Int32Array.of(5) },
  ]);
  expect(batch).toEqual({
    inputIds: { data: Int32Array.of(1, 2, 3, 4, 9, 9), shape: [2, 3] },
    labels: { data: Int32Array.of(2, 3, -100, 5, -100, -100), shape: [2, 3] },
  });
});

it('takes the next token for a label where there are none, and padding of a packed row for one more document', () => {
  const batch = padCollator({ padToMultipleOf: 4 })([{ inputIds: [1, 2, 3, 4, 5], positionIds: [0, 1, 2, 0, 1] }, { inputIds: [6, 7, 8] }]);
  expect(batch.labels!).toMatchObject({
    data: Int32Array.of(2, 3, -100, 5, -100, -100, -100, -100, 7, 8, -100, -100, -100, -100, -100, -100),
  });
  expect(batch.positionIds!).toMatchObject({ data: Int32Array.of(0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4) });
});

it('says which row is wrong', () => {
  expect(() => padCollator()([{ inputIds: [1, 2], labels: [1] }])).toThrow(
    'row 0 of a batch has 2 inputIds and 1 labels; expected as many',
  );
  expect(() => padCollator()([{ text: 'x' } as never])).toThrow(
    'row 0 of a batch has no inputIds; expected samples { inputIds, labels }, or a dataCollator of your own',
  );
});
