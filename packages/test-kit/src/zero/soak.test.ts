import { expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { Held, SoakArgs } from './soak-rank.js';

test('a thousand steps do not make a process hold more', async () => {
  const args: SoakArgs = { run: { model: 'odd', stage: 3, bf16: true, steps: 1400 }, warmUp: 400 };
  const ranks = await runWorld<Held[], SoakArgs>(new URL('./soak-rank.ts', import.meta.url), 2, {
    args,
    // A small young generation, which is full-grown after the warm-up.
    env: { NODE_OPTIONS: '--expose-gc --max-semi-space-size=2' },
    timeoutMs: 120_000,
  });
  for (const [before, after] of ranks) {
    const { residentBytes, ...rest } = after!;
    expect(rest).toEqual({ buffers: before!.buffers, bufferBytes: before!.bufferBytes, handles: before!.handles });
    // The heap breathes by a few MiB; a leak of 8 KiB a step, one gradient of this model, would be as much again.
    expect(residentBytes - before!.residentBytes, 'growth of resident memory').toBeLessThan(8 * 2 ** 20);
  }
}, 130_000);
