import { expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { Held, SoakArgs } from './soak-rank.js';

const MIB = 2 ** 20;

test('a thousand steps do not make a process hold more', async () => {
  const args: SoakArgs = { run: { model: 'odd', stage: 3, bf16: true, steps: 1800 }, looks: [300, 800, 1300, 1800] };
  const ranks = await runWorld<Held[], SoakArgs>(new URL('./soak-rank.ts', import.meta.url), 2, {
    args,
    env: { NODE_OPTIONS: '--expose-gc' },
    timeoutMs: 120_000,
  });
  for (const [first, ...later] of ranks) {
    for (const { buffers, bufferBytes, handles } of later) {
      expect({ buffers, bufferBytes, handles }).toEqual({
        buffers: first!.buffers,
        bufferBytes: first!.bufferBytes,
        handles: first!.handles,
      });
    }
    // The compiler and the collector may take more now and then; what leaks grows in every part. 8 KiB a step would be 4 MiB in each.
    const growth = (of: (held: Held) => number) => Math.min(...later.map((held, i) => of(held) - of(i === 0 ? first! : later[i - 1]!)));
    expect(
      growth(({ heapBytes }) => heapBytes),
      'growth of the heap',
    ).toBeLessThan(MIB);
    expect(
      growth(({ residentBytes }) => residentBytes),
      'growth of resident memory',
    ).toBeLessThan(4 * MIB);
  }
}, 130_000);
