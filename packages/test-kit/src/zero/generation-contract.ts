import type { DeviceName } from 'deepspeed-ts';
import { beforeAll, describe, expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { GenerationArgs, GenerationResult, GenerationRun } from './generation-rank.js';

const stages = [0, 1, 2, 3] as const;
const runs: readonly GenerationRun[] = [false, true].flatMap((bf16) => [
  { stage: 0 as const, bf16, writes: false },
  ...stages.map((stage) => ({ stage, bf16, writes: true })),
]);

/** Tests that two ranks write in the middle of training what they should, and that training does not know. */
export function generationInTraining(device: DeviceName): void {
  describe(`on ${device} two ranks that write different things between the micro-batches of a training`, () => {
    let ranks: GenerationResult[][];
    beforeAll(async () => {
      ranks = await runWorld<GenerationResult[], GenerationArgs>(new URL('./generation-rank.ts', import.meta.url), 2, {
        args: { runs, device },
      });
    }, 120_000);

    const of = (rank: number, bf16: boolean) => ranks[rank]!.filter((_, i) => runs[i]!.bf16 === bf16);

    test.each([false, true])('train with the bits of ranks that write nothing, at every stage (bf16: %s)', (bf16) => {
      for (const rank of [0, 1]) {
        const [silent, ...writing] = of(rank, bf16);
        for (const { hash } of writing) expect(hash).toBe(silent!.hash);
      }
    });

    test.each([false, true])('write the same at every stage, and in the end what a copy of the weights writes (bf16: %s)', (bf16) => {
      for (const [rank, lengths] of [[3], [11, 11, 11, 11]].entries()) {
        const [, ...writing] = of(rank, bf16);
        for (const { tokens, byCopy } of writing) {
          expect(tokens).toEqual(writing[0]!.tokens);
          expect(tokens.slice(-lengths.length)).toEqual(byCopy);
          expect(byCopy.map(({ length }) => length)).toEqual(lengths);
        }
      }
    });

    test('leave nothing behind', () => {
      for (const { left } of ranks.flat()) {
        expect(left.gradients).toBe(0);
        expect(left.all).toBeLessThanOrEqual(0);
      }
    });

    test('stop together at stage 3 when one of them is stopped, and each for itself before', () => {
      for (const [i, { stage, writes }] of runs.entries()) {
        if (!writes) continue;
        expect(ranks[1]![i]!.aborted).toBe('enough');
        expect(ranks[0]![i]!.aborted).toBe(stage === 3 ? 'another rank stopped generation' : 'nothing');
      }
    });
  });
}
