import { expect, test } from 'vitest';
import { runWorld } from '../spawn-world.js';
import type { Held, SoakArgs } from './soak-rank.js';

const MIB = 2 ** 20;
/** After the first steps, in which the compiler is at work. */
const LOOKS = Array.from({ length: 16 }, (_, i) => 300 + 100 * i);

test('a thousand steps do not make a process hold more', async () => {
  const args: SoakArgs = { run: { model: 'odd', stage: 3, bf16: true, steps: LOOKS.at(-1)! }, looks: LOOKS };
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
    // The compiler and the collector take more now and then, and give it back: what stays is what was held least. 8 KiB a step would be 6 MiB.
    const least = (of: (held: Held) => number, from: number, to?: number) => Math.min(...[first!, ...later].slice(from, to).map(of));
    const growth = (of: (held: Held) => number) => least(of, LOOKS.length / 2) - least(of, 0, LOOKS.length / 2);
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
