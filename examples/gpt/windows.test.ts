import { describe, expect, it } from 'vitest';
import { randomWindows, validationStarts, windowsAt } from './windows.js';

const tokens = Uint16Array.from({ length: 1000 }, (_, i) => i);

describe('training windows', () => {
  it('ask for the token after each token', () => {
    const { inputIds, labels } = randomWindows(tokens, { seed: 1, step: 3, first: 0, count: 5, context: 8 });
    expect(inputIds.shape).toEqual([5, 8]);
    expect([...labels.data]).toEqual(Array.from(inputIds.data, (id) => id + 1));
  });

  it('are the same however a step is shared out among ranks and micro-batches, and other ones in the next step', () => {
    const draw = (step: number, first: number, count: number) => [
      ...randomWindows(tokens, { seed: 7, step, first, count, context: 4 }).inputIds.data,
    ];
    expect([...draw(2, 0, 6), ...draw(2, 6, 6)]).toEqual(draw(2, 0, 12));
    expect([...draw(2, 0, 3), ...draw(2, 3, 3), ...draw(2, 6, 3)]).toEqual(draw(2, 0, 9));
    expect(draw(3, 0, 12)).not.toEqual(draw(2, 0, 12));
  });

  it('reach the first and the last token of the text', () => {
    const { inputIds, labels } = randomWindows(tokens.subarray(0, 10), { seed: 0, step: 1, first: 0, count: 200, context: 7 });
    expect(new Set(inputIds.data.filter((_, i) => i % 7 === 0))).toEqual(new Set([0, 1, 2]));
    expect(Math.max(...labels.data)).toBe(9);
  });
});

describe('validation windows', () => {
  it('cover a short text without a gap, the last one ending at its end', () => {
    const starts = validationStarts(100, 8, 1);
    expect(starts[0]).toBe(0);
    expect(starts.at(-1)! + 8 + 1).toBe(100);
    for (const [i, start] of starts.entries()) if (i > 0) expect(start - starts[i - 1]!).toBeLessThanOrEqual(8);
  });

  it('are evenly spaced over a long text', () => {
    const starts = validationStarts(1_000_000, 64, 1);
    const gaps = starts.slice(1).map((start, i) => start - starts[i]!);
    expect(Math.max(...gaps) - Math.min(...gaps)).toBeLessThanOrEqual(1);
  });

  it('are equally many for every rank, and one where one fits', () => {
    for (const ranks of [1, 2, 3, 8]) expect(validationStarts(100, 8, ranks).length % ranks).toBe(0);
    expect(validationStarts(9, 8, 1)).toEqual([0]);
    expect(validationStarts(9, 8, 2)).toEqual([0, 0]);
  });

  it('hold what the text has there', () => {
    const { inputIds, labels } = windowsAt(tokens, [5, 995], 4);
    expect([...inputIds.data]).toEqual([5, 6, 7, 8, 995, 996, 997, 998]);
    expect([...labels.data]).toEqual([6, 7, 8, 9, 996, 997, 998, 999]);
  });
});
