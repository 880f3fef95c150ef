import { ReferenceBackend } from '@deepspeed-ts/core';
import { expect, test } from 'vitest';
import { MirrorCommunicator } from '../mirror-communicator.js';
import { runWorld } from '../spawn-world.js';
import { type Bytes, type MemoryResult, type MemoryRun, measureMemory, memoryUnits } from './memory-run.js';

// ZeRO's arithmetic (arXiv:1910.02054, section 3): of Ψ parameters each takes 2 bytes of weight and 2 of gradient in bf16, or 4 and 4 in
// f32, and 12 of optimizer state (f32 master weight, momentum, variance; in f32 training the weight is its own master: 8). A stage divides
// by N what it shards. Ψ counts each unit padded to N slices of a multiple of 32 elements.

const STAGES = [0, 1, 2, 3] as const;
const units = memoryUnits().map(({ name, parameters }) => ({
  name,
  elements: [...parameters.values()].reduce((n, { numel }) => n + numel, 0),
}));
const padded = (elements: number, ranks: number): number => Math.ceil(elements / (32 * ranks)) * 32 * ranks;
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

interface Arithmetic {
  readonly state: Bytes;
  /** What may come on top of it for a while. */
  readonly passing: { readonly parameters: number; readonly gradients: number };
}

function arithmetic({ stage, bf16, accumulation }: MemoryRun, ranks: number): Arithmetic {
  const sizes = units.map(({ elements }) => padded(elements, ranks));
  const psi = sum(sizes);
  const [weight, gradient, optimizer] = bf16 ? [2, 2, 12] : [4, 4, 8];
  const state = {
    parameters: (weight * psi) / (stage >= 3 ? ranks : 1),
    gradients: (gradient * psi) / (stage >= 2 ? ranks : 1),
    optimizer: (optimizer * psi) / (stage >= 1 ? ranks : 1),
  };
  // Two neighbouring units: one in use, one being gathered or reduced. The tied table has a gradient from the head on, through all of backward.
  const two = Math.max(...sizes.slice(1).map((size, i) => size + sizes[i]!));
  const local = gradient * (two + sizes[0]!);
  // A later micro-batch is reduced into slices of its own before it is added.
  const slices = stage >= 2 && accumulation > 1 ? (gradient * two) / ranks : 0;
  return {
    state,
    passing: { parameters: stage >= 3 ? weight * two : 0, gradients: stage < 2 && accumulation === 1 ? 0 : local + slices },
  };
}

function check(run: MemoryRun, ranks: number, { beforeStep, afterStep, peak }: MemoryResult): void {
  const { state, passing } = arithmetic(run, ranks);
  expect(afterStep).toEqual({ ...state, parameters: expect.any(Number), gradients: 0 });
  // Stage 3 has begun to gather what the next pass uses first.
  expect(afterStep.parameters).toBeGreaterThanOrEqual(state.parameters);
  expect(afterStep.parameters).toBeLessThanOrEqual(state.parameters + passing.parameters);
  expect(beforeStep).toEqual({ ...state, parameters: expect.any(Number) });
  expect(peak.optimizer).toBe(state.optimizer);
  for (const kind of ['parameters', 'gradients'] as const) {
    expect(beforeStep[kind]).toBeLessThanOrEqual(peak[kind]);
    expect(peak[kind], kind).toBeGreaterThanOrEqual(state[kind]);
    expect(peak[kind], kind).toBeLessThanOrEqual(state[kind] + passing[kind]);
  }
}

const runs: MemoryRun[] = STAGES.flatMap((stage) => [1, 2].map((accumulation) => ({ stage, bf16: true, accumulation })));

/** What one process of `ranks` holds, found without the others. */
const alone = (run: MemoryRun, rank: number, ranks: number): Promise<MemoryResult> =>
  measureMemory(run, new MirrorCommunicator(rank, ranks), new ReferenceBackend());

test('four processes hold what the formulas say, and to the byte what one of them holds alone', async () => {
  const ranks = await runWorld<MemoryResult[], MemoryRun[]>(new URL('./memory-rank.ts', import.meta.url), 4, { args: runs });
  for (const [i, run] of runs.entries()) {
    const expected = await alone(run, 0, 4);
    for (const results of ranks) {
      check(run, 4, results[i]!);
      expect(results[i]).toEqual(expected);
    }
  }
});

const others: [string, MemoryRun, number][] = [
  ['stage 3 in f32', { stage: 3, bf16: false, accumulation: 1 }, 4],
  ['stage 1 in f32', { stage: 1, bf16: false, accumulation: 2 }, 4],
  ['stage 3 with recomputation', { stage: 3, bf16: true, accumulation: 1, recompute: true }, 4],
  ['stage 2 of 64 ranks', { stage: 2, bf16: true, accumulation: 2 }, 64],
  ['stage 3 of 64 ranks', { stage: 3, bf16: true, accumulation: 1 }, 64],
  ['stage 3 of one rank', { stage: 3, bf16: true, accumulation: 1 }, 1],
];

test.each(others)('the formulas hold for %s', async (_, run, ranks) => {
  check(run, ranks, await alone(run, ranks - 1, ranks));
});

test('padding apart these are 16Ψ, 4Ψ+12Ψ/N, 2Ψ+14Ψ/N and 16Ψ/N', () => {
  const psi = sum(units.map(({ elements }) => elements));
  const ranks = 4;
  const expected = [16 * psi, 4 * psi + (12 * psi) / ranks, 2 * psi + (14 * psi) / ranks, (16 * psi) / ranks];
  for (const stage of STAGES) {
    const { state } = arithmetic({ stage, bf16: true, accumulation: 1 }, ranks);
    const excess = state.parameters + state.gradients + state.optimizer - expected[stage]!;
    expect(excess).toBeGreaterThanOrEqual(0);
    expect(excess).toBeLessThan(units.length * ranks * 32 * 16);
  }
});
