import { ConfigError, composeConfig } from '@deepspeed-ts/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { batchSection, solveBatch } from './batch.js';

type Given = [batch: number | null, micro: number | null, steps: number | null];

function solve([batch, micro, steps]: Given, ranks: number) {
  const problems: string[] = [];
  const given = { train_batch_size: batch, train_micro_batch_size_per_gpu: micro, gradient_accumulation_steps: steps };
  const solved = solveBatch(given, ranks, (path, message) => problems.push(`${path}: ${message}`));
  return solved
    ? [solved.train_batch_size, solved.train_micro_batch_size_per_gpu, solved.gradient_accumulation_steps]
    : problems.join('\n');
}

/** DeepSpeed's own rules in order: floor divisions fill in what is missing, then one equation has to hold. */
function deepSpeedRules([batch, micro, steps]: Given, ranks: number): number[] | 'refused' {
  let [b, m, s] = [batch, micro, steps];
  if (b !== null && m !== null && s !== null) {
    // All given: only checked.
  } else if (b !== null && m !== null) s = Math.floor(Math.floor(b / m) / ranks);
  else if (b !== null && s !== null) m = Math.floor(Math.floor(b / ranks) / s);
  else if (m !== null && s !== null) b = m * s * ranks;
  else if (b !== null) [s, m] = [1, Math.floor(b / ranks)];
  else if (m !== null) [b, s] = [m * ranks, 1];
  else return 'refused';
  return m! > 0 && s! > 0 && b === m! * s! * ranks ? [b, m!, s!] : 'refused';
}

describe('the batch sizes', () => {
  it('pass DeepSpeed’s own cases on two ranks', () => {
    expect(solve([32, 16, 1], 2)).toEqual([32, 16, 1]);
    expect(solve([32, 8, 2], 2)).toEqual([32, 8, 2]);
    expect(solve([33, 17, 2], 2)).toMatch(/train_batch_size: expected/);
    expect(solve([32, 18, 1], 2)).toMatch(/train_batch_size: expected/);
  });

  it('follow from any two, from the batch alone or from the micro-batch alone', () => {
    expect(solve([32, 16, null], 2)).toEqual([32, 16, 1]);
    expect(solve([32, null, 2], 2)).toEqual([32, 8, 2]);
    expect(solve([null, 4, 3], 2)).toEqual([24, 4, 3]);
    expect(solve([32, null, null], 2)).toEqual([32, 16, 1]);
    expect(solve([null, 4, null], 2)).toEqual([8, 4, 1]);
  });

  it('follow DeepSpeed’s rules for every combination of small sizes', () => {
    const size = fc.option(fc.integer({ min: 1, max: 24 }));
    fc.assert(
      fc.property(fc.tuple(size, size, size), fc.integer({ min: 1, max: 6 }), (given, ranks) => {
        const expected = deepSpeedRules(given as Given, ranks);
        const got = solve(given as Given, ranks);
        if (expected === 'refused') expect(got).toBeTypeOf('string');
        else expect(got).toEqual(expected);
      }),
      { numRuns: 2000 },
    );
  });

  it('say which sizes would fit when they do not', () => {
    expect(solve([33, null, null], 2)).toBe('train_batch_size: expected a multiple of ranks = 2, got 33; the nearest are 32 and 34');
    expect(solve([32, 18, null], 2)).toBe(
      'train_batch_size: expected a multiple of train_micro_batch_size_per_gpu * ranks = 18 * 2 = 36, got 32; the smallest is 36',
    );
    expect(solve([32, 8, 4], 2)).toBe(
      'train_batch_size: expected train_micro_batch_size_per_gpu * gradient_accumulation_steps * ranks = 8 * 4 * 2 = 64, got 32; change one of them, or leave one out and it follows from the others',
    );
    expect(solve([null, null, 4], 2)).toMatch(/^train_batch_size: missing; give train_batch_size or train_micro_batch_size_per_gpu/);
  });

  it('must be integers of at least 1', () => {
    const problems = () => composeConfig([batchSection], { train_batch_size: 0, gradient_accumulation_steps: 1.5 });
    expect(problems).toThrow(ConfigError);
    expect(problems).toThrow('train_batch_size: expected an integer >= 1 or null, got 0');
    expect(problems).toThrow('gradient_accumulation_steps: expected an integer >= 1 or null, got 1.5');
  });
});
