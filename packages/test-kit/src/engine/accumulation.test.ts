import { beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { AccumulationResult, AccumulationRun, Way } from './accumulation-rank.js';

const STAGES = [0, 1, 2, 3] as const;
const atEveryStage = (run: Omit<AccumulationRun, 'stage'>) => STAGES.map((stage): AccumulationRun => ({ ...run, stage }));

const runs: AccumulationRun[] = [
  ...atEveryStage({ way: 'noSync', model: 'odd' }),
  ...atEveryStage({ way: 'noSync', model: 'wandering', bf16: true }),
  ...atEveryStage({ way: 'coalesced', model: 'gpt' }),
  ...atEveryStage({ way: 'recomputed', model: 'gpt', bf16: true }),
  { way: 'step by step', model: 'odd', stage: 2 },
  { way: 'by hand', model: 'odd', stage: 2 },
  { way: 'step by step', model: 'gpt', stage: 3, bf16: true },
  { way: 'recomputed from the host', model: 'gpt', stage: 3, bf16: true },
];

describe('two ranks that accumulate', () => {
  let ranks: AccumulationResult[][];
  beforeAll(async () => {
    ranks = await runWorld(new URL('./accumulation-rank.ts', import.meta.url), 2, { args: runs, timeoutMs: 120_000 });
  }, 130_000);

  const resultsOf = (way: Way, model: string, rank = 0) =>
    runs.flatMap((run, i) => (run.way === way && run.model === model ? [ranks[rank]![i]!] : []));

  test.each<[Way, string]>([
    ['noSync', 'odd'],
    ['noSync', 'wandering'],
    ['coalesced', 'gpt'],
    ['recomputed', 'gpt'],
  ])('take the same steps to the bit at every stage: %s, model %s', (way, model) => {
    const [first, ...others] = resultsOf(way, model);
    expect(others).toHaveLength(3);
    for (const other of others) expect(other).toEqual(first);
    expect(resultsOf(way, model, 1)).toEqual(resultsOf(way, model));
  });

  test('reduce a sum without noSync as with it, up to rounding', () => {
    const [[without], [withIt]] = [resultsOf('step by step', 'odd'), resultsOf('noSync', 'odd')];
    for (const [i, norm] of without!.norms.entries()) expect(Math.abs(withIt!.norms[i]! / norm - 1)).toBeLessThan(1e-3);
    expect(withIt!.samples).toBe(without!.samples);
  });

  test('may say themselves where a step ends', () => {
    expect(resultsOf('by hand', 'odd')).toEqual(resultsOf('step by step', 'odd'));
  });

  test('recompute as the config says without a trace in the numbers', () => {
    const [kept] = resultsOf('step by step', 'gpt');
    expect(resultsOf('recomputed', 'gpt')[0]).toEqual(kept);
    expect(resultsOf('recomputed from the host', 'gpt')).toEqual([kept]);
  });
});
