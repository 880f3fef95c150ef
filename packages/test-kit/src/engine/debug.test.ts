import { WorldOfOne } from '@deepspeed-ts/core';
import { beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { TrainingRun } from '../zero/training-run.js';
import { type DebugArgs, type DebugOutcome, type DebugResult, debugRun } from './debug-rank.js';

const STAGES = [0, 1, 2, 3] as const;
const precisions = { f32: {}, bf16: { bf16: true }, 'bf16 with f32 gradients': { bf16: true, f32Gradients: true }, fp16: { fp16: true } };
type Precision = keyof typeof precisions;
const all = Object.keys(precisions) as Precision[];

/** Every precision at each stage. */
const runsOf = (chosen: readonly Precision[]) =>
  Object.fromEntries(
    chosen.flatMap((precision) =>
      STAGES.map((stage): [string, TrainingRun] => [`${precision} ${stage}`, { model: 'odd', stage, steps: 0, ...precisions[precision] }]),
    ),
  );

describe.each<[number, readonly Precision[]]>([
  [1, all],
  [2, ['f32', 'bf16 with f32 gradients', 'fp16']],
  [3, ['bf16']],
  [4, ['fp16']],
])('looking into an engine of %i ranks', (size, chosen) => {
  const runs = runsOf(chosen);
  const some = chosen.at(-1)!;
  let ranks: DebugOutcome[];
  const resultOf = (precision: string, stage: number, rank = 0): DebugResult => ranks[rank]!.runs[`${precision} ${stage}`]!;

  beforeAll(async () => {
    if (size === 1) {
      const alone: Record<string, DebugResult> = {};
      for (const [name, run] of Object.entries(runs)) alone[name] = await debugRun(run, new WorldOfOne());
      ranks = [{ runs: alone, errors: [] }];
    } else {
      const program = new URL('./debug-rank.ts', import.meta.url);
      ranks = await runWorld<DebugOutcome, DebugArgs>(program, size, { args: { runs }, timeoutMs: 120_000 });
    }
  }, 130_000);

  test.each(chosen)('shows the same at every stage and rank, and training goes on alike after changes: %s', (precision) => {
    const { parts: _, ...first } = resultOf(precision, 0);
    for (const stage of STAGES) {
      for (let rank = 0; rank < size; rank++) {
        const { parts, ...result } = resultOf(precision, stage, rank);
        expect(result).toEqual(first);
        expect(parts, `parts of rank ${rank} at stage ${stage}`).toEqual(resultOf(precision, 0, rank).parts);
      }
    }
  });

  test.each(chosen)('reads master weights, and gradients whose norm is the one that the step clips: %s', (precision) => {
    const { seen, exported, norm } = resultOf(precision, 3);
    let squares = 0;
    for (const [name, values] of Object.entries(seen)) {
      expect(values.weights, name).toEqual(exported[name]);
      for (const g of values.gradient ?? []) squares += g * g;
    }
    expect(Math.abs(Math.sqrt(squares) / norm - 1)).toBeLessThan(1e-5);
    const frozen = Object.keys(seen).filter((name) => seen[name]!.gradient === null);
    expect(frozen.sort()).toEqual(['blocks.1.up.bias', 'frozen.bias', 'frozen.weight']);
    expect(new Set(seen.unused!.gradient)).toEqual(new Set([0]));
  });

  test('every element belongs to one rank', () => {
    const { seen } = resultOf(some, 2);
    for (const [name, whole] of Object.entries(seen)) {
      const parts = ranks.map((_, rank) => resultOf(some, 2, rank).parts[name]!);
      for (const [i, part] of parts.entries()) {
        const before = parts.slice(0, i).reduce((sum, { weights }) => sum + weights!.length, 0);
        if (part.weights!.length > 0) expect(part.start).toEqual([before]);
      }
      for (const kind of ['weights', 'exp_avg', 'exp_avg_sq', 'gradient']) {
        if (whole[kind]) expect(parts.flatMap((part) => part[kind]!)).toEqual(whole[kind]);
      }
    }
  });

  test('what is set comes back as it is', () => {
    for (const precision of chosen) {
      const { back } = resultOf(precision, 1);
      expect(back.length).toBeGreaterThan(20);
      for (const [name, got, set] of back) expect(got, name).toEqual(set);
    }
  });

  test.skipIf(size === 1)('a call that is wrong on one rank is an error on all', () => {
    const last = `[rank ${size - 1}]`;
    for (const { errors } of ranks) {
      expect(errors).toEqual([
        `${last} expected the name of a parameter, got 'unusedx'; did you mean 'unused'?`,
        `[debug] expected the same call on every rank, got 'get weights of unused' on rank 0 and 'get weights of empty' on rank ${size - 1}`,
        expect.stringContaining(`${last} [unused] expected 53 values, shape [53], got 54`),
        expect.stringMatching(/\[unused\] expected \d+ values, the part of rank \d, got \d+/),
        `${last} expected the name of a state, got 'exp_avgsq'; did you mean 'exp_avg_sq'?`,
        "[rank 0] expected a state of the optimizer (exp_avg, exp_avg_sq), got 'weights'",
        expect.stringContaining('[unused] has no gradient to set'),
      ]);
    }
  });
});
