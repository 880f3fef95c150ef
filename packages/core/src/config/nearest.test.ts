import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { editDistance, nearest } from './nearest.js';

/** The definition, spelled out: the textbook recursion without a table. */
function slowDistance(a: string, b: string): number {
  if (a === '' || b === '') return a.length + b.length;
  const edits = [
    slowDistance(a.slice(1), b) + 1,
    slowDistance(a, b.slice(1)) + 1,
    slowDistance(a.slice(1), b.slice(1)) + (a[0] === b[0] ? 0 : 1),
  ];
  if (a.length > 1 && b.length > 1 && a[0] === b[1] && a[1] === b[0]) edits.push(slowDistance(a.slice(2), b.slice(2)) + 1);
  return Math.min(...edits);
}

describe('editDistance', () => {
  it('agrees with the recursive definition', () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 6 });
    fc.assert(fc.property(word, word, (a, b) => editDistance(a, b) === slowDistance(a, b)));
  });

  it('counts a swap of neighbours as one edit', () => {
    expect(editDistance('satge', 'stage')).toBe(1);
  });
});

describe('nearest', () => {
  it('names every candidate at the smallest distance', () => {
    expect(nearest('f16', ['bf16', 'fp16', 'optimizer'])).toEqual(['bf16', 'fp16']);
  });

  it('sees through camelCase and dashes', () => {
    expect(nearest('trainBatchSize', ['train_batch_size', 'steps_per_print'])).toEqual(['train_batch_size']);
    expect(nearest('train-micro-batch-size', ['train_batch_size', 'train_micro_batch_size'])).toEqual(['train_micro_batch_size']);
  });

  it('stays silent when nothing is near', () => {
    expect(nearest('banana', ['optimizer', 'scheduler'])).toEqual([]);
  });
});
