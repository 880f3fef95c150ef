import { WorldOfOne } from '@deepspeed-ts/core';
import { cpuBackend } from 'deepspeed-ts';
import { describe } from 'vitest';
import { runWorld } from '../spawn-world.js';
import { optimizerContract, optimizerRuns as runs } from './optimizer-contract.js';
import { trainAll } from './optimizer-run.js';
import type { OptimizersArgs } from './optimizers-rank.js';

describe('on one rank', () => optimizerContract(async () => [await trainAll(runs, new WorldOfOne(), cpuBackend())]));

// One world trains everything: starting processes costs more than training such models.
describe.each([2, 3, 4])('on %i ranks', (size) => {
  const script = new URL('./optimizers-rank.ts', import.meta.url);
  optimizerContract(() => runWorld(script, size, { args: { runs, device: 'cpu' } satisfies OptimizersArgs, timeoutMs: 120_000 }));
});
